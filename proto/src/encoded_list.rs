//! A list of devices in its wire format.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

use crate::deviceplugin::{Device, ListAndWatchResponse};

/// The field `devices` of the list.
const DEVICES: u32 = 1;

/// A `ListAndWatchResponse` that is encoded already. A clone shares the bytes, so a list of ten thousand
/// devices costs its bytes and not ten thousand messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedList(Bytes);

impl EncodedList {
    /// The list of these devices. No more than one of them is there at a time.
    pub fn of(devices: impl IntoIterator<Item = Device>) -> Self {
        let mut bytes = Vec::new();
        for device in devices {
            encoding::message::encode(DEVICES, &device, &mut bytes);
        }
        Self(bytes.into())
    }

    /// Its length on the wire, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }

    /// The list as a message.
    pub fn decoded(&self) -> Result<ListAndWatchResponse, DecodeError> {
        ListAndWatchResponse::decode(self.0.clone())
    }
}

impl Message for EncodedList {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.0);
    }

    /// Lists are only sent: what came in would be skipped.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        skip_field(wire_type, tag, buffer, context)
    }

    fn encoded_len(&self) -> usize {
        self.0.len()
    }

    fn clear(&mut self) {
        self.0 = Bytes::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deviceplugin::{NumaNode, TopologyInfo};

    #[test]
    fn an_encoded_list_is_the_list() {
        let topology = Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] });
        let device = Device { id: "a".to_owned(), health: crate::HEALTHY.to_owned(), topology };
        let list = ListAndWatchResponse { devices: vec![device.clone(), device] };
        let encoded = EncodedList::of(list.devices.clone());
        assert_eq!(encoded.encode_to_vec(), list.encode_to_vec());
        assert_eq!(encoded.decoded().unwrap(), list);
        assert_eq!(encoded.bytes(), list.encoded_len());
    }
}
