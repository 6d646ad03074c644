//! Queueing disciplines and filters: `tc qdisc` and `tc filter`.

use netlink_packet_core::{DefaultNla, NLM_F_CREATE, NLM_F_EXCL, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::tc::{
    TcAction, TcActionAttribute, TcActionGeneric, TcActionMirrorOption, TcActionOption, TcActionType,
    TcAttribute, TcFilterU32Option, TcHandle, TcHeader, TcMessage, TcMirror, TcMirrorActionType, TcOption,
    TcU32Key, TcU32Selector, TcU32SelectorFlags,
};
use node::Result;

use super::socket::{Request, RouteSocket};

/// The handle that the kernel gives every ingress qdisc.
const INGRESS: TcHandle = TcHandle { major: 0xffff, minor: 0 };
/// The order of our filter among those of a link; the lowest number is asked first.
const PRIORITY: u32 = 1;
/// `TCA_TBF_PARMS` in linux/pkt_sched.h: a `tc_tbf_qopt`.
const PARMS: u16 = 1;
/// `TCA_TBF_RATE64`: bytes a second, where 32 bits do not hold them.
const RATE64: u16 = 4;
/// `TC_LINKLAYER_ETHERNET`: with it, the kernel asks for no rate table.
const ETHERNET: u8 = 1;
/// `sizeof(struct tc_tbf_qopt)`.
const QOPT: usize = 36;

/// A token bucket as the kernel counts it (tc-tbf(8)). A packet counts with its Ethernet header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Bytes a second.
    pub rate: u64,
    /// The time that the bucket takes to fill, in ticks of 64 ns (`PSCHED_SHIFT` in net/pkt_sched.h).
    pub buffer: u32,
    /// Bytes that may wait.
    pub limit: u32,
}

/// A queueing discipline that a link has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qdisc {
    /// `tbf` and so on.
    pub kind: String,
    /// The number before the colon; 0 is the kernel's own choice.
    pub handle: u16,
    /// Its parameters, where it is a token bucket.
    pub bucket: Option<Bucket>,
}

/// `tc qdisc add dev … root handle HANDLE: tbf …`. A qdisc that somebody put there is EEXIST.
pub fn shape(index: u32, handle: u16, bucket: &Bucket) -> Request {
    let options = bucket.options().into_iter().map(TcOption::Other).collect();
    let mut message = about(index, TcHandle { major: handle, minor: 0 }, TcHandle::ROOT, "tbf");
    message.attributes.push(TcAttribute::Options(options));
    add(RouteNetlinkMessage::NewQueueDiscipline(message))
}

/// `tc qdisc del dev … root handle HANDLE: tbf`: no other qdisc goes.
pub fn unshape(index: u32, handle: u16) -> Request {
    let message = about(index, TcHandle { major: handle, minor: 0 }, TcHandle::ROOT, "tbf");
    Request { message: RouteNetlinkMessage::DelQueueDiscipline(message), flags: 0 }
}

/// `tc qdisc add dev … ingress`.
pub fn add_ingress(index: u32) -> Request {
    add(RouteNetlinkMessage::NewQueueDiscipline(about(index, INGRESS, TcHandle::INGRESS, "ingress")))
}

/// `tc qdisc del dev … ingress`, with its filters.
pub fn delete_ingress(index: u32) -> Request {
    let message = about(index, INGRESS, TcHandle::INGRESS, "ingress");
    Request { message: RouteNetlinkMessage::DelQueueDiscipline(message), flags: 0 }
}

/// `tc filter add dev … parent ffff: protocol all prio 1 u32 match u32 0 0 action mirred egress redirect
/// dev TO`. u32 is what kernels have that lack matchall.
pub fn redirect(index: u32, to: u32) -> Request {
    let mut generic = TcActionGeneric::default();
    generic.action = TcActionType::Stolen;
    let mut mirror = TcMirror::default();
    mirror.generic = generic;
    mirror.eaction = TcMirrorActionType::EgressRedir;
    mirror.ifindex = to;
    let mut action = TcAction::default();
    action.attributes = vec![
        TcActionAttribute::Kind("mirred".to_owned()),
        TcActionAttribute::Options(vec![TcActionOption::Mirror(TcActionMirrorOption::Parms(mirror))]),
    ];
    let mut everything = TcU32Selector::default();
    everything.flags = TcU32SelectorFlags::Terminal;
    everything.nkeys = 1;
    everything.keys = vec![TcU32Key::default()];
    let mut message = about(index, TcHandle::UNSPEC, INGRESS, "u32");
    // Priority and protocol share a word (`TC_H_MAKE` in linux/pkt_sched.h); the protocol is big endian.
    let protocol = u16::try_from(libc::ETH_P_ALL).unwrap_or_default().to_be();
    message.header.info = (PRIORITY << 16) | u32::from(protocol);
    message.attributes.push(TcAttribute::Options(vec![
        TcOption::U32(TcFilterU32Option::Selector(everything)),
        TcOption::U32(TcFilterU32Option::Action(vec![action])),
    ]));
    add(RouteNetlinkMessage::NewTrafficFilter(message))
}

/// The root qdisc of a link, the kernel's own choice included.
pub fn root(socket: &mut RouteSocket, index: u32) -> Result<Option<Qdisc>> {
    get(socket, index, TcHandle::ROOT)
}

/// The qdisc of a link that sees what arrives: `ingress` or `clsact`.
pub fn ingress(socket: &mut RouteSocket, index: u32) -> Result<Option<Qdisc>> {
    get(socket, index, TcHandle::INGRESS)
}

/// What a filter does with what it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// It sends it to the link with this index; 0 is one that is gone.
    Redirect(u32),
    /// Anything else.
    Other,
}

/// The filters on what arrives by a link.
pub fn filters(socket: &mut RouteSocket, index: u32) -> Result<Vec<Filter>> {
    let mut message = TcMessage::default();
    message.header = header(index, TcHandle::UNSPEC, INGRESS);
    let doing = || format!("list the filters of the link #{index}");
    let found = socket.dump(&RouteNetlinkMessage::GetTrafficFilter(message), doing)?;
    Ok(found.iter().filter_map(filter).collect())
}

impl Bucket {
    /// The longest packet that passes, in bytes: what the time of the bucket is worth
    /// (`psched_ns_t2l` in net/sched/sch_tbf.c).
    pub fn largest_packet(&self) -> u64 {
        u64::try_from(u128::from(self.rate) * u128::from(self.buffer) * 64 / 1_000_000_000)
            .unwrap_or(u64::MAX)
    }

    fn options(&self) -> Vec<DefaultNla> {
        let short = u32::try_from(self.rate);
        let mut parms = Vec::with_capacity(QOPT);
        // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
        parms.extend([0, ETHERNET, 0, 0, 0, 0, 0, 0]);
        parms.extend(short.unwrap_or(u32::MAX).to_ne_bytes());
        // No peak rate.
        parms.extend([0; 12]);
        parms.extend(self.limit.to_ne_bytes());
        parms.extend(self.buffer.to_ne_bytes());
        parms.extend(0_u32.to_ne_bytes());
        let mut options = vec![DefaultNla::new(PARMS, parms)];
        if short.is_err() {
            options.push(DefaultNla::new(RATE64, self.rate.to_ne_bytes().to_vec()));
        }
        options
    }

    /// Reads `TCA_OPTIONS` of a `tbf`.
    fn read(options: &[u8]) -> Option<Self> {
        let (mut bucket, mut rate64) = (None, None);
        for nla in NlasIterator::new(options).flatten() {
            let value: &[u8] = nla.value();
            let word = |at: usize| value.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
            match nla.kind() {
                PARMS => bucket = Some(Self { rate: word(8)?.into(), limit: word(24)?, buffer: word(28)? }),
                RATE64 => rate64 = value.get(..8).and_then(|v| v.try_into().ok()).map(u64::from_ne_bytes),
                _ => {}
            }
        }
        bucket.map(|b| Self { rate: rate64.unwrap_or(b.rate), ..b })
    }
}

fn get(socket: &mut RouteSocket, index: u32, parent: TcHandle) -> Result<Option<Qdisc>> {
    let mut message = TcMessage::default();
    message.header = header(index, TcHandle::UNSPEC, parent);
    let doing = || format!("look up a qdisc of the link #{index}");
    let found = socket.get_qdisc(RouteNetlinkMessage::GetQueueDiscipline(message), doing)?;
    Ok(found.and_then(described))
}

fn described(message: RouteNetlinkMessage) -> Option<Qdisc> {
    let RouteNetlinkMessage::NewQueueDiscipline(message) = message else { return None };
    let mut qdisc = Qdisc { kind: String::new(), handle: message.header.handle.major, bucket: None };
    for attribute in message.attributes {
        match attribute {
            TcAttribute::Kind(kind) => qdisc.kind = kind,
            TcAttribute::Options(options) if qdisc.kind == "tbf" => {
                qdisc.bucket = options.iter().find_map(raw).and_then(|bytes| Bucket::read(&bytes));
            }
            _ => {}
        }
    }
    Some(qdisc)
}

fn raw(option: &TcOption) -> Option<Vec<u8>> {
    let TcOption::Other(nla) = option else { return None };
    let mut bytes = vec![0; netlink_packet_core::Nla::value_len(nla)];
    netlink_packet_core::Nla::emit_value(nla, &mut bytes);
    Some(bytes)
}

/// `None` for what is no filter: hash tables are listed, too.
fn filter(message: &RouteNetlinkMessage) -> Option<Filter> {
    let RouteNetlinkMessage::NewTrafficFilter(message) = message else { return None };
    let is_u32 = message.attributes.iter().any(|a| matches!(a, TcAttribute::Kind(k) if k == "u32"));
    let options: Vec<&TcFilterU32Option> = message
        .attributes
        .iter()
        .flat_map(|a| if let TcAttribute::Options(options) = a { options.as_slice() } else { &[] })
        .filter_map(|o| if let TcOption::U32(option) = o { Some(option) } else { None })
        .collect();
    if is_u32 && !options.iter().any(|o| matches!(o, TcFilterU32Option::Selector(_))) {
        return None;
    }
    let actions =
        options.iter().flat_map(|o| if let TcFilterU32Option::Action(a) = o { a.as_slice() } else { &[] });
    let mut mirrors = actions.flat_map(|a| &a.attributes).filter_map(|a| match a {
        TcActionAttribute::Options(options) => options.iter().find_map(|o| match o {
            TcActionOption::Mirror(TcActionMirrorOption::Parms(m)) => Some(m.ifindex),
            _ => None,
        }),
        _ => None,
    });
    Some(mirrors.next_back().map_or(Filter::Other, Filter::Redirect))
}

fn about(index: u32, handle: TcHandle, parent: TcHandle, kind: &str) -> TcMessage {
    let mut message = TcMessage::default();
    message.header = header(index, handle, parent);
    message.attributes.push(TcAttribute::Kind(kind.to_owned()));
    message
}

fn header(index: u32, handle: TcHandle, parent: TcHandle) -> TcHeader {
    TcHeader { index: i32::try_from(index).unwrap_or_default(), handle, parent, ..TcHeader::default() }
}

fn add(message: RouteNetlinkMessage) -> Request {
    Request { message, flags: NLM_F_CREATE | NLM_F_EXCL }
}

#[cfg(test)]
mod tests {
    use super::*;
    use netlink_packet_core::Emitable;

    fn bytes(request: &Request) -> Vec<u8> {
        let mut bytes = vec![0; request.message.buffer_len()];
        request.message.emit(&mut bytes);
        bytes
    }

    #[test]
    fn a_token_bucket_is_the_kernels_structure() {
        let bucket = Bucket { rate: 1_250_000, buffer: 156_250, limit: 43_750 };
        let made = bytes(&shape(7, 0x6e70, &bucket));
        let mut expected = Vec::new();
        // struct tcmsg: family and padding, index, handle 6e70:, parent root, info.
        expected.extend(0_u32.to_ne_bytes());
        expected.extend(7_u32.to_ne_bytes());
        expected.extend(0x6e70_0000_u32.to_ne_bytes());
        expected.extend(u32::MAX.to_ne_bytes());
        expected.extend(0_u32.to_ne_bytes());
        // TCA_KIND
        expected.extend(8_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend(b"tbf\0");
        // TCA_OPTIONS with TCA_TBF_PARMS
        expected.extend(44_u16.to_ne_bytes());
        expected.extend(2_u16.to_ne_bytes());
        expected.extend(40_u16.to_ne_bytes());
        expected.extend(1_u16.to_ne_bytes());
        expected.extend([0, 1, 0, 0, 0, 0, 0, 0]);
        expected.extend(1_250_000_u32.to_ne_bytes());
        expected.extend([0; 12]);
        expected.extend(43_750_u32.to_ne_bytes());
        expected.extend(156_250_u32.to_ne_bytes());
        expected.extend(0_u32.to_ne_bytes());
        assert_eq!(made, expected);
    }

    #[test]
    fn a_bucket_reads_as_it_is_written_also_above_32_bits() {
        for rate in [125_000, u64::from(u32::MAX), u64::from(u32::MAX) + 1, 12_500_000_000] {
            let bucket = Bucket { rate, buffer: 9, limit: 11 };
            let mut options = Vec::new();
            for nla in bucket.options() {
                let mut one = vec![0; nla.buffer_len()];
                nla.emit(&mut one);
                options.extend(one);
            }
            assert_eq!(Bucket::read(&options), Some(bucket));
        }
        assert_eq!(Bucket::read(&[]), None);
        assert_eq!(Bucket::read(&[6, 0, 1, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn the_time_of_the_bucket_bounds_the_packet() {
        // 1514 bytes at 125 MB/s are 12.112 µs; cut to whole microseconds they carry 1496.
        let bucket = Bucket { rate: 125_000_000, buffer: 187, limit: 1 };
        assert_eq!(bucket.largest_packet(), 1496);
    }
}
