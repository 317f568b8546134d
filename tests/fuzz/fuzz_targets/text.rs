//! Text of keys, through the whole login of both sides, and through the parser alone.
//!
//! Input: per exchange a byte of flags and stages, two bytes of length, the text.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use offhost_fuzz::Input;
use protocol::iscsi::bhs::{LoginRequest, LoginResponse};
use protocol::iscsi::chap::{Account, Algorithm, Credential, InitiatorPolicy, Nonce, Secret, TargetPolicy};
use protocol::iscsi::keys::{KEYS, Setting, Wishes};
use protocol::iscsi::login::{
    Admission, Gate, InitiatorLogin, InitiatorNames, LoginStatus, Progress, TargetEntry, TargetLogin, TargetNames, Visitor,
};
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
    let entry = TargetEntry { name: "iqn.2026-01.org.offhost:fuzz".into(), addresses: Vec::new() };
    let guarded = input.byte() & 1 == 1;
    let gate: Arc<dyn Gate> = if guarded { Arc::new(Guarded(entry)) } else { Arc::new(vec![entry]) };
    let names = TargetNames { gate, portal_group_tag: 1, tsih: 1 };
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
                assert!(!guarded, "nobody guesses a hash");
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
        chap: (input.byte() & 1 == 1).then(|| InitiatorPolicy {
            account: account(),
            algorithms: Algorithm::ALL.to_vec(),
            nonce: NONCE,
        }),
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

const NONCE: Nonce = Nonce { identifier: 7, challenge: [0x5A; 32] };

fn account() -> Account {
    let credential = |user, secret: &str| Credential::new(user, Secret::new(secret).unwrap()).unwrap();
    Account::new(credential("user", "sesame-sesame-1"), Some(credential("target", "open-sesame-two"))).unwrap()
}

/// Lets nobody in without a proof.
#[derive(Debug)]
struct Guarded(TargetEntry);

impl Gate for Guarded {
    fn admit(&self, visitor: &Visitor) -> Result<Admission, LoginStatus> {
        let policy = TargetPolicy { accounts: vec![account()], algorithms: Algorithm::ALL.to_vec() };
        Ok(Admission { chap: Some((policy, NONCE)), ..vec![self.0.clone()].admit(visitor)? })
    }

    fn authorize(&self, _: &Visitor, _: Option<&str>) -> Result<(), LoginStatus> {
        Ok(())
    }

    fn targets(&self, _: &str) -> Vec<TargetEntry> {
        vec![self.0.clone()]
    }
}
