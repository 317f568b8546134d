//! Text of keys, through the whole login of both sides, and through the parser alone.
//!
//! Input: per exchange a byte of flags and stages, two bytes of length, the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offhost_fuzz::Input;
use protocol::iscsi::bhs::{LoginRequest, LoginResponse};
use protocol::iscsi::keys::{KEYS, Setting, Wishes};
use protocol::iscsi::login::{InitiatorLogin, InitiatorNames, Progress, TargetLogin, TargetNames};
use protocol::iscsi::text;

fuzz_target!(|data: &[u8]| {
    parse(data);
    target(Input(data));
    initiator(Input(data));
});

fn parse(data: &[u8]) {
    let Ok(pairs) = text::parse(data) else { return };
    for pair in pairs {
        for spec in KEYS {
            let _ = spec.parse(pair.value).map(|value| spec.format(value));
            let _ = spec.settle(pair.value, Setting(spec.default));
        }
    }
}

fn target(mut input: Input<'_>) {
    let names = TargetNames { targets: vec!["iqn.2026-01.org.offhost:fuzz".into()], portal_group_tag: 1, tsih: 1 };
    let mut login = TargetLogin::new(names, Wishes::default());
    // The first names are given often, so that what comes behind them is reached.
    let mut front: &[u8] = match input.byte() & 1 {
        0 => b"InitiatorName=iqn.2026-01.org.offhost:peer\0TargetName=iqn.2026-01.org.offhost:fuzz\0",
        _ => b"",
    };
    while !input.is_empty() {
        let request = LoginRequest { flags: input.byte(), ..Default::default() };
        let length = usize::from(input.short());
        let text = [front, input.take(length)].concat();
        front = b"";
        let answer = login.handle(&request, &text);
        assert!(answer.text.len() <= 8192, "longer than a login PDU takes");
        match answer.outcome {
            Ok(None) => {}
            Ok(Some(logged_in)) => {
                let parameters = logged_in.parameters;
                assert!(parameters.max_send_data_segment_length >= 512 && parameters.max_burst_length >= 512);
                return;
            }
            Err(_) => return,
        }
    }
}

fn initiator(mut input: Input<'_>) {
    let names = InitiatorNames {
        initiator: "iqn.2026-01.org.offhost:peer".into(),
        target: Some("iqn.2026-01.org.offhost:fuzz".into()),
        isid: [0x40, 0, 0, 0, 0, 1],
        cid: 0,
    };
    let (mut login, _) = InitiatorLogin::new(names, Wishes::default());
    while !input.is_empty() {
        let flags = input.byte();
        let response = LoginResponse { flags, isid: [0x40, 0, 0, 0, 0, 1], ..Default::default() };
        let length = usize::from(input.short());
        match login.handle(&response, input.take(length)) {
            Ok(Progress::Send(request)) => assert!(request.text.len() <= 8192),
            _ => return,
        }
    }
}
