//! Task management: what is hit, what is waited for, who is told.

use super::*;
use crate::access::{Access, LunMask, MappedLun, Rule};
use crate::nexus::Peers;
use crate::task::{Execution, Response, Task};

#[tokio::test]
async fn task_management_is_answered() {
    let served = Served::start().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let mut ask = async |function, lun, referenced| {
        client.session.task_management(function, LunAddress::from_number(lun), referenced);
        client.managed().await
    };
    use TaskManagementFunction as Function;
    use TaskManagementResponse as Outcome;
    assert_eq!(ask(Function::AbortTask, 0, Some(99)).await, Outcome::TaskDoesNotExist);
    assert_eq!(ask(Function::LogicalUnitReset, 3, None).await, Outcome::LunDoesNotExist);
    assert_eq!(ask(Function::ClearAca, 0, None).await, Outcome::FunctionNotSupported);
    assert_eq!(ask(Function::TargetWarmReset, 0, None).await, Outcome::FunctionComplete);
    served.end().await;
}

#[tokio::test]
async fn a_cold_reset_ends_every_session() {
    let served = Served::start().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.session.task_management(TaskManagementFunction::TargetColdReset, LunAddress::from_number(0), None);
    assert!(matches!(client.event().await, Some(InitiatorEvent::TaskManagement { .. })));
    assert!(client.is_dropped().await);
    assert!(other.is_dropped().await);
    served.end().await;
}

#[tokio::test]
async fn an_aborted_task_is_waited_for_and_never_answered() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    let read = client.read(GATED_LBA, 1);
    client.send_to(&gate).await;
    client.session.task_management(TaskManagementFunction::AbortTask, LunAddress::from_number(0), Some(read));
    assert!(client.is_silent().await, "the command still runs");
    gate.open();
    assert_eq!(client.managed().await, TaskManagementResponse::FunctionComplete);
    assert!(client.is_silent().await);
    let next = client.read(GATED_LBA, 1);
    assert_eq!(client.completed().await.0, next);
    served.end().await;
}

#[tokio::test]
async fn an_ordered_command_that_is_aborted_holds_up_nobody() {
    let (served, gate) = Served::with_disk().await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    client.read(GATED_LBA, 1);
    let ordered = client.submit_as(Attribute::Ordered, 0, &cdb_10(0x28, 0, 1), Data::In(512));
    let younger = client.read(0, 1);
    assert!(client.is_silent().await);
    client.session.task_management(TaskManagementFunction::AbortTask, LunAddress::from_number(0), Some(ordered));
    let (mut managed, mut completed) = (false, false);
    while !(managed && completed) {
        match client.event().await {
            Some(InitiatorEvent::TaskManagement { response: TaskManagementResponse::FunctionComplete, .. }) => managed = true,
            Some(InitiatorEvent::Completed { tag, .. }) if tag == younger => completed = true,
            event => panic!("{event:?}"),
        }
    }
    gate.open();
    served.end().await;
}

#[tokio::test]
async fn a_reset_reaches_the_tasks_of_others_and_tells_them() {
    let (served, gate) = Served::with_disk().await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    let mut client = served.client("iqn.2026-11.example:host").await;
    other.read(GATED_LBA, 1);
    other.send_to(&gate).await;
    client.session.task_management(TaskManagementFunction::LogicalUnitReset, LunAddress::from_number(0), None);
    assert!(client.is_silent().await, "the other's command still runs");
    gate.open();
    assert_eq!(client.managed().await, TaskManagementResponse::FunctionComplete);
    other.read(0, 1);
    let (_, told) = other.completed().await;
    assert_eq!((told.status, told.sense[2], told.sense[12]), (Status::CheckCondition as u8, 6, 0x29));
    served.end().await;
}

/// Shows `initiator` LUN 0 under this number, and everybody else everything.
fn show_as(served: &Served, initiator: &str, number: u16) {
    let rule = |name: &str, luns| Rule { initiators: vec![name.parse().unwrap()], users: Vec::new(), luns, read_only: false };
    let mask = LunMask::Only([(number, MappedLun { number: 0, read_only: false })].into());
    served.target.set_access(Access { rules: vec![rule(initiator, mask), rule("*", LunMask::All)], ..Access::default() });
}

/// PERSISTENT RESERVE OUT with this service action.
fn reserve_out(client: &mut Client, lun: u16, action: u8, key: u64, service_action_key: u64) -> u32 {
    const EXCLUSIVE_ACCESS: u8 = 3;
    let mut list = [0; 24];
    list[..8].copy_from_slice(&key.to_be_bytes());
    list[8..16].copy_from_slice(&service_action_key.to_be_bytes());
    let cdb = [0x5F, action, EXCLUSIVE_ACCESS, 0, 0, 0, 0, 0, 24, 0];
    client.submit(lun, &cdb, Data::Out(vec![Bytes::copy_from_slice(&list)]))
}

#[tokio::test]
async fn preempt_and_abort_ends_the_commands_at_the_unit_whatever_its_numbers_are() {
    let (register, reserve, preempt_and_abort) = (0, 1, 5);
    let (served, gate) = Served::with_disk().await;
    show_as(&served, "iqn.2026-11.example:host", 5);
    let mut host = served.client_at("iqn.2026-11.example:host", 5).await;
    let mut other = served.client("iqn.2026-11.example:other").await;
    for (client, lun, key) in [(&mut host, 5, 1), (&mut other, 0, 2)] {
        reserve_out(client, lun, register, 0, key);
        assert_eq!(client.completed().await.1.status, Status::Good as u8);
    }
    reserve_out(&mut other, 0, reserve, 2, 0);
    assert_eq!(other.completed().await.1.status, Status::Good as u8);
    other.read(GATED_LBA, 1);
    other.send_to(&gate).await;
    let preempting = reserve_out(&mut host, 5, preempt_and_abort, 1, 2);
    assert!(host.is_silent().await, "a command of the preempted nexus still runs");
    gate.open();
    let (tag, preempted) = host.completed().await;
    assert_eq!((tag, preempted.status), (preempting, Status::Good as u8));
    assert!(other.is_silent().await, "and is never answered");
    served.end().await;
}

#[tokio::test]
async fn the_ports_of_a_target_are_the_portal_groups_that_it_is_reached_through() {
    let served = Served::start().await;
    assert_eq!(served.target.target_ports(), [1]);
    for tag in [9, 3] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        served.server.listen(listener, address, Portal { advertised: None, tag });
    }
    assert_eq!(served.target.target_ports(), [1, 3, 9], "in all groups");
    served.target.set_portal_groups(vec![9, 1, 7]);
    assert_eq!(served.target.target_ports(), [1, 9], "nothing is reached through 7");
    served.end().await;
}

#[tokio::test]
async fn all_target_ports_are_reported_and_registered_at_by_a_target_in_all_groups() {
    let (served, _gate) = Served::with_disk().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    served.server.listen(listener, address, Portal { advertised: None, tag: 2 });
    let mut client = served.client("iqn.2026-11.example:host").await;
    // REPORT TARGET PORT GROUPS: descriptors of 8 bytes and 4 for each port, behind 4 bytes of length.
    let groups = client.command(0, &[0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0], 256).await.data_in.concat();
    assert_eq!((groups.len(), groups[7], groups[19]), (4 + 2 * 12, 1, 2), "{groups:02x?}");
    // ALL_TG_PT with REGISTER, then READ KEYS: one key at each port.
    let mut list = [0; 24];
    (list[15], list[20]) = (7, 0x04);
    client.submit(0, &[0x5F, 0, 0, 0, 0, 0, 0, 0, 24, 0], Data::Out(vec![Bytes::copy_from_slice(&list)]));
    assert_eq!(client.completed().await.1.status, Status::Good as u8);
    let keys = client.command(0, &[0x5E, 0, 0, 0, 0, 0, 0, 0, 64, 0], 64).await.data_in.concat();
    assert_eq!((keys[7], keys[15], keys[23]), (16, 7, 7), "{keys:02x?}");
    served.end().await;
}

/// Copies that never end by themselves.
#[derive(Debug, Default)]
struct Endless {
    begun: tokio::sync::Notify,
    aborted: tokio::sync::Notify,
}

impl CopyService for Endless {
    fn third_party_copy_out(self: Arc<Self>, _device: Device, task: Task) -> Execution {
        Execution::Async(Box::pin(async move {
            self.begun.notify_one();
            task.abort.cancelled().await;
            self.aborted.notify_one();
            Response::good()
        }))
    }

    fn receive_copy(&self, _device: &Device, _task: &Task) -> Response {
        Response::good()
    }

    fn abort_background(&self, _: &Device, _: Option<&[u64]>) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }

    fn third_party_copy_page(&self, _device: &Device) -> Vec<u8> {
        Vec::new()
    }
}

#[tokio::test]
async fn a_reset_reaches_a_copy_whose_session_is_gone() {
    use TaskManagementFunction as Function;
    for function in [Function::LogicalUnitReset, Function::TargetWarmReset, Function::ClearTaskSet] {
        let copies = Arc::new(Endless::default());
        let (served, gate) = Served::with_disk_and(Some(Arc::clone(&copies) as Arc<dyn CopyService>)).await;
        let mut host = served.client("iqn.2026-11.example:host").await;
        let mut other = served.client("iqn.2026-11.example:other").await;
        let mut copy = [0; 16];
        (copy[0], copy[13]) = (0x83, 16);
        host.submit(0, &copy, Data::Out(vec![Bytes::from_static(&[0; 16])]));
        host.read(GATED_LBA, 1);
        host.send_to(&gate).await;
        copies.begun.notified().await;
        drop(host);
        // A command holds the end of the session up: the copy is reached meanwhile, too.
        if function != Function::LogicalUnitReset {
            gate.open();
            tokio::time::timeout(PATIENCE, async {
                while served.target.session_count() > 1 {
                    tokio::task::yield_now().await
                }
            })
            .await
            .expect("the session ends, though its copy goes on");
        }
        other.session.task_management(function, LunAddress::from_number(0), None);
        let aborted = tokio::time::timeout(PATIENCE, async {
            tokio::select! { () = copies.aborted.notified() => {}, _ = other.next_event() => copies.aborted.notified().await }
        });
        aborted.await.expect("the copy is aborted");
        gate.open();
        served.end().await;
    }
}
