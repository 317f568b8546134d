//! Offers, answers, and what comes of them.

use super::*;
use crate::iscsi::pdu::Digests;
use crate::iscsi::text::Writer;
use proptest::prelude::*;

fn answers(negotiator: &mut Negotiator, offers: &[(&str, &str)]) -> String {
    let mut writer = Writer::default();
    for (key, value) in offers {
        negotiator.handle(key, value, Stage::Operational, &mut writer).unwrap();
    }
    String::from_utf8(writer.take(usize::MAX).0).unwrap().replace('\0', " ")
}

#[test]
fn each_rule_settles_an_offer_as_the_rfc_says() {
    let mut target = Negotiator::new(Sender::Target, Wishes::default());
    let offers = [
        ("InitialR2T", "No"),
        ("ImmediateData", "No"),
        ("MaxBurstLength", "16776192"),
        ("FirstBurstLength", "0x8000"),
        ("DefaultTime2Wait", "0"),
        ("MaxOutstandingR2T", "1"),
        ("DataPDUInOrder", "No"),
        ("HeaderDigest", "SHA,CRC32C,None"),
        ("DataDigest", "MD4"),
        ("IFMarker", "Yes"),
        ("IFMarkInt", "2048"),
        ("X-com.vendor", "1"),
    ];
    assert_eq!(
        answers(&mut target, &offers),
        "InitialR2T=No ImmediateData=No MaxBurstLength=1048576 FirstBurstLength=32768 DefaultTime2Wait=2 \
         MaxOutstandingR2T=1 DataPDUInOrder=Yes HeaderDigest=CRC32C DataDigest=Reject IFMarker=No IFMarkInt=Reject \
         X-com.vendor=NotUnderstood "
    );
    let parameters = target.parameters();
    assert!(!parameters.initial_r2t && !parameters.immediate_data);
    assert_eq!(parameters.digests, Digests { header: true, data: false });
    assert_eq!((parameters.first_burst_length, parameters.max_burst_length), (32768, 1_048_576));
}

#[test]
fn silence_leaves_the_defaults_of_the_rfc() {
    let parameters = Negotiator::new(Sender::Target, Wishes::default()).parameters();
    assert!(parameters.initial_r2t && parameters.immediate_data);
    assert_eq!((parameters.max_burst_length, parameters.first_burst_length), (262_144, 65_536));
    assert_eq!((parameters.max_send_data_segment_length, parameters.max_recv_data_segment_length), (8192, 8192));
}

#[test]
fn a_key_twice_or_from_the_wrong_side_ends_the_login() {
    let mut target = Negotiator::new(Sender::Target, Wishes::default());
    let mut writer = Writer::default();
    target.handle("InitialR2T", "No", Stage::Operational, &mut writer).unwrap();
    let twice = target.handle("InitialR2T", "No", Stage::Operational, &mut writer);
    assert_eq!(twice, Err(NegotiationError::Twice("InitialR2T")));
    let not_theirs = target.handle("TargetAddress", "x", Stage::Operational, &mut writer);
    assert_eq!(not_theirs, Err(NegotiationError::NotTheirs("TargetAddress")));
}

#[test]
fn an_operational_key_is_rejected_in_the_security_stage() {
    let mut target = Negotiator::new(Sender::Target, Wishes::default());
    let mut writer = Writer::default();
    target.handle("MaxBurstLength", "512", Stage::Security, &mut writer).unwrap();
    assert_eq!(writer.take(99).0, b"MaxBurstLength=Reject\0");
}

#[test]
fn a_discovery_session_finds_burst_lengths_irrelevant() {
    let mut target = Negotiator::new(Sender::Target, Wishes::default());
    target.set_discovery(true);
    assert_eq!(
        answers(&mut target, &[("MaxBurstLength", "512"), ("HeaderDigest", "None")]),
        "MaxBurstLength=Irrelevant HeaderDigest=None "
    );
}

#[test]
fn an_answer_that_does_not_follow_from_the_offer_is_refused() {
    let mut initiator = Negotiator::new(Sender::Initiator, Wishes::default());
    let mut writer = Writer::default();
    initiator.offer_all(&mut writer);
    let more = initiator.handle("MaxBurstLength", "16776192", Stage::Operational, &mut writer);
    assert_eq!(more, Err(NegotiationError::Answer("MaxBurstLength")));
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let wish = || prop_oneof![Just(DigestWish::Never), Just(DigestWish::Accept), Just(DigestWish::Prefer)];
    (wish(), wish(), 0u32..1 << 25, 0u32..1 << 25, 0u32..1 << 25, any::<bool>(), any::<bool>(), 0u32..9).prop_map(
        |(header_digest, data_digest, max_recv, max_burst, first_burst, initial_r2t, immediate_data, r2ts)| Wishes {
            header_digest,
            data_digest,
            max_recv_data_segment_length: max_recv,
            max_burst_length: max_burst,
            first_burst_length: first_burst,
            initial_r2t,
            immediate_data,
            max_outstanding_r2t: r2ts,
            max_connections: r2ts,
            error_recovery_level: r2ts % 3,
            default_time2retain: r2ts,
        },
    )
}

proptest! {
    #[test]
    fn both_sides_come_to_the_same_parameters(ours in wishes(), theirs in wishes()) {
        let mut initiator = Negotiator::new(Sender::Initiator, ours);
        let mut target = Negotiator::new(Sender::Target, theirs);
        let (mut offers, mut answers, mut none) = (Writer::default(), Writer::default(), Writer::default());
        initiator.offer_all(&mut offers);
        let (text, _) = offers.take(usize::MAX);
        for pair in crate::iscsi::text::parse(&text).unwrap() {
            target.handle(pair.key, pair.value, Stage::Operational, &mut answers).unwrap();
        }
        target.declare(&mut answers);
        let (text, _) = answers.take(usize::MAX);
        for pair in crate::iscsi::text::parse(&text).unwrap() {
            initiator.handle(pair.key, pair.value, Stage::Operational, &mut none).unwrap();
        }
        prop_assert!(none.is_empty());
        let (a, b) = (initiator.parameters(), target.parameters());
        prop_assert_eq!(a.max_send_data_segment_length, b.max_recv_data_segment_length);
        prop_assert_eq!(b.max_send_data_segment_length, a.max_recv_data_segment_length);
        prop_assert_eq!(a, Parameters {
            max_recv_data_segment_length: a.max_recv_data_segment_length,
            max_send_data_segment_length: a.max_send_data_segment_length,
            ..b
        });
    }
}
