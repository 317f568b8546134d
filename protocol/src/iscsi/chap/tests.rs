//! CHAP against vectors of another implementation, against itself, and against peers that break its rules.

use proptest::prelude::*;

use super::super::text;
use super::*;
use crate::wire::hex;

const SECRET: &str = "sesame-sesame-1";
const MUTUAL: &str = "open-sesame-two";

fn secret(text: &str) -> Secret {
    Secret::new(text).unwrap()
}

fn credential(user: &str, text: &str) -> Credential {
    Credential::new(user, secret(text)).unwrap()
}

fn account(mutual: bool) -> Account {
    Account::new(credential("ali", SECRET), mutual.then(|| credential("cave", MUTUAL))).unwrap()
}

/// 10h, 11h and so on; `from` keeps the two sides apart.
fn nonce(from: u8) -> Nonce {
    Nonce { identifier: 0xA7, challenge: std::array::from_fn(|place| from + place as u8) }
}

fn target(mutual: bool, algorithms: &[Algorithm]) -> TargetChap {
    let accounts = vec![Account::new(credential("other", "another-secret"), None).unwrap(), account(mutual)];
    TargetChap::new(TargetPolicy { accounts, algorithms: algorithms.to_vec() }, nonce(0x10))
}

/// One exchange of the target's: text in, text out.
fn say(chap: &mut TargetChap, said: &str) -> Result<(String, Option<String>), ChapError> {
    let said = said.replace(' ', "\0");
    let mut answer = Writer::default();
    let proved = chap.handle(&text::parse(said.as_bytes()).unwrap(), &mut answer)?;
    Ok((String::from_utf8(answer.take(usize::MAX).0).unwrap().replace('\0', " "), proved))
}

/// From Python's hashlib: identifier A7h, [`SECRET`], and a challenge that counts up from 10h.
const GOLDEN: [(Algorithm, &str); 4] = [
    (Algorithm::Md5, "e94907e1e225d9dd281504ca70a0d050"),
    (Algorithm::Sha1, "5f64b9563c11582eff0b47b8522f479fddcee416"),
    (Algorithm::Sha256, "1b3c31e4fe53d4731e28127aa79193a2c1fab7619896ac622db36f0630e219a8"),
    (Algorithm::Sha3_256, "b796c35c6eb836bc52e67733f3abbd5fe63b967cc1a053f4ba7c3f8f1e375b3d"),
];

#[test]
fn responses_are_those_of_other_implementations() {
    for (algorithm, expected) in GOLDEN {
        let response = algorithm.response(0xA7, &secret(SECRET), nonce(0x10).challenge_for(algorithm));
        assert_eq!(response, hex(expected), "{algorithm}");
    }
}

#[test]
fn each_algorithm_lets_its_user_in() {
    for (algorithm, golden) in GOLDEN {
        let mut chap = target(false, &Algorithm::ALL);
        let (answer, proved) = say(&mut chap, &format!("CHAP_A={}", algorithm as u8)).unwrap();
        let challenge = hex_constant(nonce(0x10).challenge_for(algorithm));
        assert_eq!((answer, proved), (format!("CHAP_A={} CHAP_I=167 CHAP_C={challenge} ", algorithm as u8), None));
        let (answer, proved) = say(&mut chap, &format!("CHAP_N=ali CHAP_R=0x{}", golden.to_uppercase())).unwrap();
        assert_eq!((answer.as_str(), proved.as_deref()), ("", Some("ali")));
    }
}

#[test]
fn the_initiators_preference_is_followed_among_what_is_allowed() {
    for (offer, allowed, chosen) in [
        ("8,7,6,5", &Algorithm::ALL[..], Some("8")),
        ("5,6,7,8", &Algorithm::ALL[..], Some("5")),
        ("5,7", &[Algorithm::Sha256][..], Some("7")),
        ("99,0x7", &Algorithm::ALL[..], Some("7")),
        ("5", &[Algorithm::Sha256][..], None),
        ("56", &Algorithm::ALL[..], None),
        ("", &Algorithm::ALL[..], None),
        ("MD5", &Algorithm::ALL[..], None),
    ] {
        let answer = say(&mut target(false, allowed), &format!("CHAP_A={offer}"));
        match chosen {
            Some(number) => assert!(answer.unwrap().0.starts_with(&format!("CHAP_A={number} ")), "{offer}"),
            None => assert_eq!(answer, Err(ChapError::Algorithm), "{offer}"),
        }
    }
}

/// What a target that has challenged with MD5 makes of a text.
fn after_challenge(mutual: bool, said: &str) -> Result<(String, Option<String>), ChapError> {
    let mut chap = target(mutual, &Algorithm::ALL);
    say(&mut chap, "CHAP_A=5").unwrap();
    say(&mut chap, said)
}

#[test]
fn a_wrong_answer_is_none() {
    let right = GOLDEN[0].1;
    let other =
        hex_constant(&Algorithm::Md5.response(0xA7, &secret("another-secret"), nonce(0x10).challenge_for(Algorithm::Md5)));
    let cases = [
        (format!("CHAP_N=ali CHAP_R=0x{}", "00".repeat(16)), ChapError::Response("ali".into())),
        (format!("CHAP_N=Ali CHAP_R=0x{right}"), ChapError::Response("Ali".into())),
        (format!("CHAP_N=ali CHAP_R={other}"), ChapError::Response("ali".into())),
        (format!("CHAP_N= CHAP_R=0x{right}"), ChapError::Malformed("CHAP_N")),
        (format!("CHAP_N={} CHAP_R=0x{right}", "a".repeat(256)), ChapError::Malformed("CHAP_N")),
        ("CHAP_N=ali".into(), ChapError::Missing("CHAP_R")),
        (format!("CHAP_R=0x{right}"), ChapError::Missing("CHAP_N")),
        (format!("CHAP_N=ali CHAP_R=0x{right}00"), ChapError::Malformed("CHAP_R")),
        (format!("CHAP_N=ali CHAP_R=0x{}", &right[2..]), ChapError::Malformed("CHAP_R")),
        (format!("CHAP_N=ali CHAP_R={right}"), ChapError::Malformed("CHAP_R")),
        (format!("CHAP_N=ali CHAP_N=ali CHAP_R=0x{right}"), ChapError::OutOfTurn("CHAP_N")),
        (format!("CHAP_A=5 CHAP_N=ali CHAP_R=0x{right}"), ChapError::OutOfTurn("CHAP_A")),
    ];
    for (said, expected) in cases {
        assert_eq!(after_challenge(false, &said), Err(expected), "{said}");
    }
    assert!(after_challenge(false, &format!("CHAP_N=ali CHAP_R=0x{right}")).is_ok());
}

#[test]
fn an_answer_may_be_base64_and_no_longer_than_it_should() {
    let base64 = "0b6UkH4eIl2d0oFQTKcKDQUA==".to_owned();
    assert!(after_challenge(false, &format!("CHAP_N=ali CHAP_R={base64}")).is_ok());
    let oversize = format!("0bb3ZlcnNpemUK{}", &base64[2..]);
    let refused = after_challenge(false, &format!("CHAP_N=ali CHAP_R={oversize}"));
    assert_eq!(refused, Err(ChapError::Malformed("CHAP_R")));
}

#[test]
fn a_name_that_looks_like_a_number_is_a_name() {
    for name in ["0xbeef", "0bZm9v"] {
        let accounts = vec![Account::new(credential(name, SECRET), None).unwrap()];
        let mut chap = TargetChap::new(TargetPolicy { accounts, algorithms: Algorithm::ALL.to_vec() }, nonce(0x10));
        say(&mut chap, "CHAP_A=5").unwrap();
        let proved = say(&mut chap, &format!("CHAP_N={name} CHAP_R=0x{}", GOLDEN[0].1)).unwrap().1;
        assert_eq!(proved.as_deref(), Some(name));
    }
}

#[test]
fn a_failed_authentication_is_not_gone_on_with() {
    let mut chap = target(false, &Algorithm::ALL);
    say(&mut chap, "CHAP_A=5").unwrap();
    say(&mut chap, "CHAP_N=ali CHAP_R=0x00").unwrap_err();
    let right = format!("CHAP_N=ali CHAP_R=0x{}", GOLDEN[0].1);
    assert_eq!(say(&mut chap, &right), Err(ChapError::OutOfTurn("CHAP")));
    let mut chap = target(false, &Algorithm::ALL);
    assert_eq!(say(&mut chap, &right), Err(ChapError::Missing("CHAP_A")));
    let mut chap = target(false, &Algorithm::ALL);
    let early = say(&mut chap, &format!("CHAP_A=5 {right}"));
    assert_eq!(early, Err(ChapError::OutOfTurn("CHAP_N")));
}

#[test]
fn mutual_authentication_answers_only_a_challenge_that_is_not_its_own() {
    let right = format!("CHAP_N=ali CHAP_R=0x{}", GOLDEN[0].1);
    let question = [0x55; 16];
    let asked = format!("{right} CHAP_I=3 CHAP_C={}", hex_constant(&question));
    let expected = hex_constant(&Algorithm::Md5.response(3, &secret(MUTUAL), &question));
    assert_eq!(after_challenge(true, &asked).unwrap().0, format!("CHAP_N=cave CHAP_R={expected} "));

    let own = hex_constant(nonce(0x10).challenge_for(Algorithm::Md5));
    assert_eq!(after_challenge(true, &format!("{right} CHAP_I=167 CHAP_C={own}")), Err(ChapError::Reflection));
    assert_eq!(after_challenge(false, &asked), Err(ChapError::NoMutual));
    for (question, expected) in [
        ("CHAP_I=256 CHAP_C=0x01", ChapError::Malformed("CHAP_I")),
        ("CHAP_I=-1 CHAP_C=0x01", ChapError::Malformed("CHAP_I")),
        ("CHAP_I=1", ChapError::Missing("CHAP_C")),
        ("CHAP_C=0x01", ChapError::Missing("CHAP_I")),
        ("CHAP_I=1 CHAP_C=", ChapError::Malformed("CHAP_C")),
        ("CHAP_I=1 CHAP_C=0x", ChapError::Malformed("CHAP_C")),
    ] {
        assert_eq!(after_challenge(true, &format!("{right} {question}")), Err(expected), "{question}");
    }
    let long = format!("{right} CHAP_I=1 CHAP_C=0x{}", "00".repeat(MAX_BINARY + 1));
    assert_eq!(after_challenge(true, &long), Err(ChapError::Malformed("CHAP_C")));
    let wrong = format!("CHAP_N=ali CHAP_R=0x{} CHAP_I=1 CHAP_C=0x01", "00".repeat(16));
    assert_eq!(after_challenge(true, &wrong), Err(ChapError::Response("ali".into())), "nothing is answered before the proof");
}

/// A login between both machines; what the initiator, then what the target makes of it.
fn meet(policy: InitiatorPolicy, target: &mut TargetChap) -> (Result<(), ChapError>, Option<String>) {
    let mut writer = Writer::default();
    let mut initiator = InitiatorChap::new(policy, &mut writer);
    let mut proved = None;
    let mut done = false;
    loop {
        let (said, mut answer) = (writer.take(usize::MAX).0, Writer::default());
        if said.is_empty() && done {
            return (Ok(()), proved);
        }
        match target.handle(&text::parse(&said).unwrap(), &mut answer) {
            Ok(name) => proved = name.or(proved),
            Err(error) => return (Err(error), None),
        }
        let answer = answer.take(usize::MAX).0;
        if done {
            return (Ok(()), proved);
        }
        match initiator.handle(&text::parse(&answer).unwrap(), &mut writer) {
            Ok(step) => done = step == InitiatorStep::Done,
            Err(error) => return (Err(error), proved),
        }
    }
}

fn policy(mutual: bool, algorithms: &[Algorithm]) -> InitiatorPolicy {
    InitiatorPolicy { account: account(mutual), algorithms: algorithms.to_vec(), nonce: nonce(0x60) }
}

#[test]
fn both_sides_prove_themselves_with_every_algorithm() {
    for mutual in [false, true] {
        for algorithm in Algorithm::ALL {
            let met = meet(policy(mutual, &[algorithm]), &mut target(true, &Algorithm::ALL));
            assert_eq!(met, (Ok(()), Some("ali".into())), "{algorithm} {mutual}");
        }
    }
}

#[test]
fn an_initiator_turns_away_from_a_target_that_cannot_prove_itself() {
    let liar = Account::new(credential("ali", SECRET), Some(credential("cave", "not-the-secret"))).unwrap();
    let mut target = TargetChap::new(TargetPolicy { accounts: vec![liar], algorithms: Algorithm::ALL.to_vec() }, nonce(0x10));
    let met = meet(policy(true, &Algorithm::ALL), &mut target);
    assert_eq!(met.0, Err(ChapError::Response("cave".into())));
}

#[test]
fn an_initiator_answers_no_challenge_of_its_own_and_no_algorithm_it_did_not_offer() {
    let mut writer = Writer::default();
    let mut respond = |mutual, said: &str| {
        let mut chap = InitiatorChap::new(policy(mutual, &[Algorithm::Md5]), &mut writer);
        let said = said.replace(' ', "\0");
        chap.handle(&text::parse(said.as_bytes()).unwrap(), &mut writer)
    };
    let own = hex_constant(nonce(0x60).challenge_for(Algorithm::Md5));
    assert_eq!(respond(true, &format!("CHAP_A=5 CHAP_I=1 CHAP_C={own}")), Err(ChapError::Reflection));
    assert_eq!(respond(false, "CHAP_A=7 CHAP_I=1 CHAP_C=0x01"), Err(ChapError::Algorithm));
    assert_eq!(respond(false, "CHAP_A=5 CHAP_I=1"), Err(ChapError::Missing("CHAP_C")));
    assert_eq!(respond(false, "CHAP_N=x"), Err(ChapError::OutOfTurn("CHAP_N")));
}

#[test]
fn credentials_that_protect_nothing_are_refused() {
    assert_eq!(Secret::new("eleven-byte"), Err(CredentialError::SecretLength(11)));
    assert!(Secret::new("twelve-bytes").is_ok());
    assert_eq!(Secret::new([0; 256]), Err(CredentialError::SecretLength(256)));
    for name in ["", "a\0b", "a\nb", &"a".repeat(256)] {
        assert_eq!(Credential::new(name, secret(SECRET)), Err(CredentialError::Name));
    }
    let same = Account::new(credential("a", SECRET), Some(credential("b", SECRET)));
    assert_eq!(same, Err(CredentialError::SameSecret));
}

#[test]
fn a_file_of_a_secret_is_its_owners_alone() {
    assert_eq!(Secret::from_file(b"sesame-sesame-1\r\n".to_vec(), 0o100_600), Ok(secret(SECRET)));
    assert_eq!(Secret::from_file(b"sesame-sesame-1".to_vec(), 0o400), Ok(secret(SECRET)));
    assert_eq!(Secret::from_file(b"sesame-sesame-1\n\n".to_vec(), 0o600), Secret::new("sesame-sesame-1\n"));
    for mode in [0o640, 0o604, 0o620] {
        let open = Secret::from_file(b"sesame-sesame-1".to_vec(), 0o100_000 | mode);
        assert_eq!(open, Err(CredentialError::OpenToOthers(mode)));
    }
}

#[test]
fn no_secret_is_shown() {
    let shown = format!("{:?} {:?}", account(true), policy(true, &Algorithm::ALL));
    assert!(shown.contains("ali") && !shown.contains("sesame"), "{shown}");
    assert!(!shown.contains(&format!("{:?}", nonce(0x60).challenge)), "{shown}");
}

proptest! {
    #[test]
    fn any_text_is_answered_or_refused(texts in proptest::collection::vec("(CHAP_[AICNR]=(0[xb])?[0-9a-zA-Z+/=,]{0,20}\0){0,6}", 1..4)) {
        let mut target = target(true, &Algorithm::ALL);
        let mut writer = Writer::default();
        let mut initiator = InitiatorChap::new(policy(true, &Algorithm::ALL), &mut writer);
        for said in texts {
            let pairs = text::parse(said.as_bytes()).unwrap();
            prop_assert!(!matches!(target.handle(&pairs, &mut writer), Ok(Some(_))), "nobody guesses a hash");
            let _ = initiator.handle(&pairs, &mut writer);
        }
    }
}
