//! A list of devices in its wire format.

use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, skip_field};
use prost::{DecodeError, Message};

use crate::deviceplugin::ListAndWatchResponse;

/// A `ListAndWatchResponse` that is encoded already. A clone shares the bytes, so a list of ten thousand
/// devices costs its bytes and not ten thousand messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EncodedList(Bytes);

impl EncodedList {
    /// The list in its wire format.
    pub fn of(list: &ListAndWatchResponse) -> Self {
        Self(list.encode_to_vec().into())
    }

    /// Its length on the wire, in bytes.
    pub fn bytes(&self) -> usize {
        self.0.len()
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
    use crate::deviceplugin::{Device, NumaNode, TopologyInfo};

    #[test]
    fn an_encoded_list_is_the_list() {
        let topology = Some(TopologyInfo { nodes: vec![NumaNode { id: 1 }] });
        let device = Device { id: "a".to_owned(), health: crate::HEALTHY.to_owned(), topology };
        let list = ListAndWatchResponse { devices: vec![device] };
        let encoded = EncodedList::of(&list);
        assert_eq!(ListAndWatchResponse::decode(encoded.encode_to_vec().as_slice()).unwrap(), list);
        assert_eq!(encoded.bytes(), list.encoded_len());
    }
}
