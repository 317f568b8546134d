//! Commands: data both ways, order, and who waits for whom.

use super::*;

#[tokio::test]
async fn three_megabytes_go_to_the_disk_and_come_back() {
    let (served, _gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let data: Vec<u8> = (0..3 << 20).map(|at: usize| (at ^ at >> 9) as u8).collect();
    client.submit(0, &cdb_10(0x2A, 7, 6144), Data::Out(vec![data.clone().into()]));
    assert_eq!(client.completed().await.1.status, Status::Good as u8);
    client.read(7, 6144);
    assert_eq!(client.completed().await.1.data_in.concat(), data);
    let session = served.server.sessions().remove(0);
    assert_eq!((session.data_out, session.data_in), (3 << 20, 3 << 20));
    served.end().await;
}

/// The socket gathers long PDUs: neither the end of one nor the short one behind it may be left lying there.
#[tokio::test]
async fn a_long_pdu_may_stop_in_the_middle_and_a_short_one_follow() {
    let (served, _gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.submit(0, &cdb_10(0x2A, 0, 512), Data::Out(vec![vec![7; 512 * 512].into()]));
    let transmit = client.session.transmit(CID).unwrap();
    let mut begin = transmit.copy_to_bytes(transmit.len());
    assert!(begin.len() > 128 * 1024, "immediate data makes a long PDU");
    let end = begin.split_off(begin.len() - 100);
    client.stream.write_all(&begin).await.unwrap();
    assert!(client.is_silent().await);
    client.stream.write_all(&end).await.unwrap();
    assert_eq!(client.completed().await.1.status, Status::Good as u8);
    client.session.ping(Bytes::from_static(b"still there"));
    assert!(matches!(client.event().await, Some(InitiatorEvent::Pong { .. })));
    served.end().await;
}

#[tokio::test]
async fn long_reads_that_wait_for_room_are_all_answered() {
    let volume = Volume::new(Arc::new(NullStore::new(8 << 20)));
    let common = Common::new(Identity::new(NAME, "null", "DISK"), None);
    let luns = LunMap::default();
    luns.add(0, Device::Disk(Disk::new(common, volume, BlockLength::B512)));
    let server = Served::with(Arc::new(luns)).await;
    let mut client = server.client("iqn.2026-01.test:reader").await;
    for _ in 0..100 {
        let mut open: HashSet<u32> = (0..32).map(|_| client.read(0, 2048)).collect();
        while !open.is_empty() {
            let (tag, completion) = client.completed().await;
            assert!(open.remove(&tag));
            assert_eq!(completion.status, Status::Good as u8);
        }
    }
    server.end().await;
}

#[tokio::test]
async fn a_command_that_takes_long_holds_up_no_other() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let long = client.read(GATED_LBA, 1);
    let others: Vec<u32> = (0..20).map(|lba| client.read(lba, 1)).collect();
    for _ in &others {
        assert!(others.contains(&client.completed().await.0));
    }
    client.session.ping(Bytes::from_static(b"still there"));
    assert!(matches!(client.event().await, Some(InitiatorEvent::Pong { .. })));
    gate.open();
    assert_eq!(client.completed().await.0, long);
    served.end().await;
}

/// More long commands than there are hops at first: each hop has ended a short one before it meets a long one.
#[tokio::test]
async fn a_reply_does_not_wait_for_the_next_command_of_its_thread() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let short: Vec<u32> = (0..2).map(|lba| client.read(lba, 64)).collect();
    let long: Vec<u32> = (0..2).map(|_| client.read(GATED_LBA, 1)).collect();
    for _ in &short {
        assert!(short.contains(&client.completed().await.0));
    }
    gate.open();
    for _ in &long {
        assert!(long.contains(&client.completed().await.0));
    }
    served.end().await;
}

#[tokio::test]
async fn ordered_commands_wait_and_head_of_queue_passes() {
    let (served, gate) = Served::with_disk().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let long = client.read(GATED_LBA, 1);
    client.send_to(&gate).await;
    let read = |client: &mut Client, attribute| client.submit_as(attribute, 0, &cdb_10(0x28, 0, 1), Data::In(512));
    let ordered = read(&mut client, Attribute::Ordered);
    let younger = read(&mut client, Attribute::Simple);
    assert!(client.is_silent().await, "an older command still runs");
    // One task set for all nexuses.
    let elsewhere = read(&mut other, Attribute::Simple);
    assert!(other.is_silent().await, "an ORDERED command is there");
    let head = read(&mut client, Attribute::HeadOfQueue);
    assert_eq!(client.completed().await.0, head);
    gate.open();
    assert_eq!(client.completed().await.0, long);
    assert_eq!(client.completed().await.0, ordered);
    assert_eq!(client.completed().await.0, younger);
    assert_eq!(other.completed().await.0, elsewhere);
    served.end().await;
}
