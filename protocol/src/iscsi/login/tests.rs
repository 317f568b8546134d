//! Both sides of the login against each other, and the target against initiators that break its rules.

use std::sync::Arc;

use proptest::prelude::*;

use super::super::bhs::{self, LoginRequest};
use super::super::chap::{Account, Algorithm, Credential, InitiatorPolicy, Nonce, Secret, TargetPolicy};
use super::super::keys::{Stage, Wishes};
use super::*;
use crate::wire::U16;

fn entry() -> TargetEntry {
    TargetEntry { name: "iqn.2026-11.example:disk".into(), addresses: Vec::new() }
}

fn names() -> TargetNames {
    TargetNames { gate: Arc::new(vec![entry()]), portal_group_tag: 1, tsih: 7 }
}

fn initiator(target: Option<&str>) -> (InitiatorLogin, Request) {
    let names = InitiatorNames {
        initiator: "iqn.2026-11.example:host".into(),
        target: target.map(str::to_owned),
        isid: [0x80, 0, 0, 0, 0, 1],
        cid: 1,
        chap: None,
    };
    InitiatorLogin::new(names, Wishes::default())
}

fn run(target: Option<&str>) -> (Result<LoggedIn, LoginError>, Option<LoggedIn>) {
    let (mut initiator, mut request) = initiator(target);
    let mut login = TargetLogin::new(names(), Wishes::default());
    loop {
        let answer = login.handle(&request.header, &request.text);
        match initiator.handle(&answer.header, &answer.text) {
            Ok(Progress::Send(next)) => request = next,
            Ok(Progress::Done(done)) => return (Ok(done), answer.outcome.unwrap()),
            Err(error) => return (Err(error), answer.outcome.unwrap_or_default()),
        }
    }
}

#[test]
fn both_sides_come_to_the_same_session() {
    let (ours, theirs) = run(Some("iqn.2026-11.example:disk"));
    let ours = ours.unwrap();
    assert_eq!(Some(&ours), theirs.as_ref());
    assert_eq!(ours.tsih, 7);
    assert_eq!(ours.parameters.max_send_data_segment_length, 256 * 1024);
    assert!(!ours.parameters.initial_r2t);
}

#[test]
fn a_discovery_session_has_no_target_name() {
    let (ours, theirs) = run(None);
    assert_eq!(ours.unwrap().target_name, None);
    assert_eq!(theirs.unwrap().target_name, None);
}

#[test]
fn an_unknown_target_is_not_found() {
    assert_eq!(run(Some("iqn.x:other")).0, Err(LoginError::Refused(LoginStatus::NOT_FOUND)));
}

fn refusal(change: impl FnOnce(&mut Request)) -> LoginStatus {
    let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
    change(&mut request);
    let answer = TargetLogin::new(names(), Wishes::default()).handle(&request.header, &request.text);
    assert!(answer.outcome.is_err(), "{answer:?}");
    LoginStatus { class: answer.header.status_class, detail: answer.header.status_detail }
}

#[test]
fn each_broken_rule_has_its_status() {
    assert_eq!(refusal(|request| request.header.version_min = 1), LoginStatus::UNSUPPORTED_VERSION);
    assert_eq!(refusal(|request| request.text.clear()), LoginStatus::MISSING_PARAMETER);
    assert_eq!(refusal(|request| request.header.flags = 0x80 | 0x0C | 3), LoginStatus::INITIATOR_ERROR);
    assert_eq!(refusal(|request| request.header.flags = 0x80 | 1 << 2), LoginStatus::INITIATOR_ERROR);
    assert_eq!(refusal(|request| request.header.flags = 0x80 | 2), LoginStatus::INITIATOR_ERROR);
    assert_eq!(refusal(|request| request.header.flags |= 0x40), LoginStatus::INITIATOR_ERROR);
    let chap = b"InitiatorName=iqn.x\0TargetName=iqn.2026-11.example:disk\0AuthMethod=CHAP\0";
    assert_eq!(refusal(|request| request.text = chap.to_vec()), LoginStatus::AUTHENTICATION_FAILURE);
    let odd = b"InitiatorName=iqn.x\0SessionType=Odd\0";
    assert_eq!(refusal(|request| request.text = odd.to_vec()), LoginStatus::SESSION_TYPE_NOT_SUPPORTED);
}

#[test]
fn names_may_be_said_again_but_not_others() {
    let again = |text: &str| {
        let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
        let mut login = TargetLogin::new(names(), Wishes::default());
        assert!(login.handle(&request.header, &request.text).outcome.is_ok());
        request.header.flags = 0x04;
        login.handle(&request.header, text.as_bytes()).outcome.is_ok()
    };
    assert!(again("InitiatorName=iqn.2026-11.example:host\0SessionType=Normal\0TargetName=iqn.2026-11.example:disk\0"));
    assert!(!again("InitiatorName=iqn.2026-11.example:other\0"));
    assert!(!again("TargetName=iqn.2026-11.example:other\0"));
    assert!(!again("SessionType=Discovery\0"));
}

#[test]
fn text_in_pieces_is_answered_with_empty_responses_until_it_is_whole() {
    let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
    let mut login = TargetLogin::new(names(), Wishes::default());
    let text = std::mem::take(&mut request.text);
    let whole_flags = request.header.flags;
    request.header.flags = bhs::CONTINUE;
    let answer = login.handle(&request.header, &text[..10]);
    assert_eq!((answer.header.flags, answer.text.len(), answer.header.status_class), (0, 0, 0));
    request.header.flags = whole_flags;
    let answer = login.handle(&request.header, &text[10..]);
    assert_eq!(answer.header.flags, bhs::FINAL | Stage::Operational as u8);
    assert!(answer.text.starts_with(b"AuthMethod=None\0"));
}

#[test]
fn an_answer_longer_than_a_segment_comes_in_pieces_and_only_then_the_stage_changes() {
    let mut login = TargetLogin::new(names(), Wishes::default());
    let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
    for number in 0..800 {
        request.text.extend_from_slice(format!("X-{number}=1\0").as_bytes());
    }
    let first = login.handle(&request.header, &request.text);
    assert_eq!((first.header.flags, first.text.len()), (bhs::CONTINUE, 8192));
    request.header.flags = 0;
    let second = login.handle(&request.header, &[]);
    assert_eq!(second.header.flags, bhs::FINAL | Stage::Operational as u8);
    assert!(second.text.ends_with(b"TargetPortalGroupTag=1\0"));
}

#[test]
fn a_login_that_goes_nowhere_ends() {
    let mut login = TargetLogin::new(names(), Wishes::default());
    let (_, mut request) = initiator(Some("iqn.2026-11.example:disk"));
    request.header.flags = 0;
    let rounds = (0..100).take_while(|round| {
        let text = if *round == 0 { request.text.as_slice() } else { &[] };
        login.handle(&request.header, text).outcome.is_ok()
    });
    assert_eq!(rounds.count(), MAX_EXCHANGES as usize);
}

proptest! {
    #[test]
    fn any_request_is_answered(flags: u8, min in 0u8..2, tsih in 0u16..2, text in proptest::collection::vec(any::<u8>(), 0..200)) {
        let header = LoginRequest { flags, version_min: min, tsih: U16::new(tsih), ..Default::default() };
        let mut login = TargetLogin::new(names(), Wishes::default());
        let _ = login.handle(&header, &text);
        let _ = login.handle(&header, &text);
    }
}

const SECRET: &str = "sesame-sesame-1";
const HOST: &str = "iqn.2026-11.example:host";

fn credential(user: &str, secret: &str) -> Credential {
    Credential::new(user, Secret::new(secret).unwrap()).unwrap()
}

fn account(secret: &str, mutual: Option<&str>) -> Account {
    Account::new(credential("ali", secret), mutual.map(|secret| credential("cave", secret))).unwrap()
}

fn nonce(from: u8) -> Nonce {
    Nonce { identifier: from, challenge: [from; 32] }
}

/// Asks for CHAP; lets in only [`HOST`], and only who proved to be ali.
#[derive(Debug)]
struct Guarded(Account);

impl Gate for Guarded {
    fn admit(&self, visitor: &Visitor) -> Result<Admission, LoginStatus> {
        let chap = TargetPolicy { accounts: vec![self.0.clone()], algorithms: Algorithm::ALL.to_vec() };
        Ok(Admission { chap: Some((chap, nonce(1))), ..vec![entry()].admit(visitor)? })
    }

    fn authorize(&self, visitor: &Visitor, user: Option<&str>) -> Result<(), LoginStatus> {
        let known = visitor.initiator_name == HOST && user == Some("ali");
        if known { Ok(()) } else { Err(LoginStatus::AUTHORIZATION_FAILURE) }
    }

    fn targets(&self, _: &str) -> Vec<TargetEntry> {
        vec![entry()]
    }
}

fn guarded(mutual: Option<&str>) -> TargetLogin {
    let gate = Arc::new(Guarded(account(SECRET, mutual)));
    TargetLogin::new(TargetNames { gate, portal_group_tag: 1, tsih: 7 }, Wishes::default())
}

/// A login of `account` at a guarded target: what each side makes of it, and the status it was told.
fn authenticate(login: &mut TargetLogin, name: &str, account: Option<Account>) -> (Result<LoggedIn, LoginError>, LoginStatus) {
    let chap = account.map(|account| InitiatorPolicy { account, algorithms: Algorithm::ALL.to_vec(), nonce: nonce(2) });
    let target = Some("iqn.2026-11.example:disk".to_owned());
    let names = InitiatorNames { initiator: name.into(), target, isid: [0x80, 0, 0, 0, 0, 1], cid: 1, chap };
    let (mut initiator, mut request) = InitiatorLogin::new(names, Wishes::default());
    loop {
        let answer = login.handle(&request.header, &request.text);
        let status = LoginStatus { class: answer.header.status_class, detail: answer.header.status_detail };
        match initiator.handle(&answer.header, &answer.text) {
            Ok(Progress::Send(next)) => request = next,
            Ok(Progress::Done(done)) => {
                assert_eq!(answer.outcome.unwrap().as_ref(), Some(&done), "both sides know the same");
                return (Ok(done), status);
            }
            Err(error) => return (Err(error), status),
        }
    }
}

#[test]
fn who_proves_to_be_who_he_says_is_let_in() {
    for mutual in [None, Some("open-sesame-two")] {
        let (done, status) = authenticate(&mut guarded(Some("open-sesame-two")), HOST, Some(account(SECRET, mutual)));
        assert_eq!((done.unwrap().user.as_deref(), status), (Some("ali"), LoginStatus::SUCCESS));
    }
}

#[test]
fn who_does_not_is_told_no_more_than_that() {
    let failure = LoginStatus::AUTHENTICATION_FAILURE;
    let wrong = Some(account("not-the-secret", None));
    assert_eq!(authenticate(&mut guarded(None), HOST, wrong).1, failure);
    assert_eq!(authenticate(&mut guarded(None), HOST, None).1, failure, "None is not taken");
    let mutual = Some(account(SECRET, Some("open-sesame-two")));
    assert_eq!(authenticate(&mut guarded(None), HOST, mutual).1, failure, "the target has nothing to prove");
    let stranger = authenticate(&mut guarded(None), "iqn.x:other", Some(account(SECRET, None)));
    assert_eq!(stranger.1, LoginStatus::AUTHORIZATION_FAILURE);
}

#[test]
fn an_initiator_closes_when_the_target_does_not_prove_itself() {
    let mine = Some(account(SECRET, Some("open-sesame-two")));
    let (outcome, _) = authenticate(&mut guarded(Some("another-secret")), HOST, mine.clone());
    assert_eq!(outcome, Err(LoginError::Chap(ChapError::Response("cave".into()))));
    let mut open = TargetLogin::new(names(), Wishes::default());
    let (outcome, _) = authenticate(&mut open, HOST, mine);
    assert!(outcome.is_err(), "a target that asks for nothing cannot be told from an impostor");
    let mut open = TargetLogin::new(names(), Wishes::default());
    let (outcome, _) = authenticate(&mut open, HOST, Some(account(SECRET, None)));
    assert_eq!(outcome.unwrap().user, None, "one-way credentials are offered, not insisted on");
}

/// Sends texts with these flags to a guarded target; the flags, text and status of the last answer.
fn converse(texts: &[(u8, &str)]) -> (u8, String, LoginStatus) {
    let mut login = guarded(None);
    let (_, first) = initiator(Some("iqn.2026-11.example:disk"));
    let mut last = None;
    for (flags, text) in texts {
        let header = LoginRequest { flags: *flags, ..first.header };
        let text = text.replace(' ', "\0");
        let names = format!("InitiatorName={HOST}\0TargetName=iqn.2026-11.example:disk\0");
        let text = if last.is_none() { names + &text } else { text };
        last = Some(login.handle(&header, text.as_bytes()));
    }
    let answer = last.unwrap();
    let status = LoginStatus { class: answer.header.status_class, detail: answer.header.status_detail };
    (answer.header.flags, String::from_utf8(answer.text).unwrap().replace('\0', " "), status)
}

#[test]
fn the_security_stage_is_not_left_before_the_proof() {
    const GO_ON: u8 = bhs::FINAL | Stage::Operational as u8;
    const FULL_FEATURE: u8 = bhs::FINAL | Stage::FullFeature as u8;
    let failure = LoginStatus::AUTHENTICATION_FAILURE;
    // The T bit beside an offer is asked too early; only the answer says so.
    let offered = converse(&[(GO_ON, "AuthMethod=CHAP,None ")]);
    assert_eq!((offered.0, offered.2), (0, LoginStatus::SUCCESS));
    assert!(offered.1.starts_with("AuthMethod=CHAP "), "{}", offered.1);
    let pressed = converse(&[(GO_ON, "AuthMethod=CHAP "), (GO_ON, ""), (FULL_FEATURE, "")]);
    assert_eq!((pressed.0, pressed.1.as_str()), (0, ""), "however often");
    let challenged = converse(&[(0, "AuthMethod=CHAP "), (GO_ON, "CHAP_A=7,5 ")]);
    assert_eq!(challenged.0, 0);
    assert!(challenged.1.starts_with("CHAP_A=7 CHAP_I=1 CHAP_C=0x0101"), "{}", challenged.1);

    assert_eq!(converse(&[(GO_ON, "")]).2, failure, "without a method");
    assert_eq!(converse(&[(FULL_FEATURE, "")]).2, failure);
    assert_eq!(converse(&[(0, "AuthMethod=None ")]).2, failure);
    assert_eq!(converse(&[(0, "AuthMethod=KRB5,SRP ")]).2, failure);
    // Beginning behind the security stage.
    assert_eq!(converse(&[(0x04 | FULL_FEATURE, "")]).2, failure);
    assert_eq!(converse(&[(0, "AuthMethod=CHAP "), (0x04 | FULL_FEATURE, "")]).2, LoginStatus::INITIATOR_ERROR);
    assert_eq!(converse(&[(0, "AuthMethod=CHAP "), (0, "AuthMethod=CHAP ")]).2, LoginStatus::INITIATOR_ERROR);
    assert_eq!(converse(&[(0, "CHAP_A=5 ")]).2, LoginStatus::INITIATOR_ERROR, "before the method");
    assert_eq!(converse(&[(0, "AuthMethod=CHAP "), (0, "CHAP_A=5 "), (0, "CHAP_A=5 ")]).2, failure);
}

proptest! {
    #[test]
    fn no_sequence_of_texts_gets_past_the_authentication(
        rounds in proptest::collection::vec((any::<u8>(), "(AuthMethod=(CHAP|None)\0)?(CHAP_[AICNR]=(0x)?[0-9a-z,]{0,8}\0){0,4}"), 1..8)
    ) {
        let mut login = guarded(None);
        let (_, first) = initiator(Some("iqn.2026-11.example:disk"));
        for (round, (flags, text)) in rounds.iter().enumerate() {
            let names = format!("InitiatorName={HOST}\0TargetName=iqn.2026-11.example:disk\0");
            let text = if round == 0 { names + text } else { text.clone() };
            let header = LoginRequest { flags: *flags, ..first.header };
            let answer = login.handle(&header, text.as_bytes());
            prop_assert!(!matches!(answer.outcome, Ok(Some(_))));
            prop_assert_eq!(answer.header.flags & bhs::FINAL, 0);
            if answer.outcome.is_err() {
                break;
            }
        }
    }
}
