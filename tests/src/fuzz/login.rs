//! The login of both sides, with and without CHAP: each alone against any text, and both against each other over a line that
//! changes a few bytes of what they say. Whoever cannot prove himself stays out, whatever happens on the line.
//!
//! Input: a byte of options, see [`Options`]; then for one side alone, per exchange a byte of flags and stages, two bytes of
//! length, the text; for both, per PDU a byte whose low bits count changes, each of two bytes of place and one that is added.

use std::sync::Arc;

use protocol::iscsi::bhs::{LoginRequest, LoginResponse};
use protocol::iscsi::chap::{Account, Algorithm, Credential, InitiatorPolicy, Nonce, Secret, TargetPolicy};
use protocol::iscsi::keys::Wishes;
use protocol::iscsi::login::{
    Admission, Gate, InitiatorLogin, InitiatorNames, LoggedIn, LoginStatus, MAX_SEGMENT, Progress, TargetEntry, TargetLogin,
    TargetNames, Visitor,
};

use super::Input;

/// One input.
pub fn fuzz(data: &[u8]) {
    let mut input = Input(data);
    let options = Options(input.byte());
    match options.0 & 3 {
        0 => target_alone(input, options),
        1 => initiator_alone(input, options),
        _ => both(input, options),
    }
}

/// Bits 0 and 1 choose who is there: 0 the target, 1 the initiator, else both.
#[derive(Clone, Copy)]
struct Options(u8);

impl Options {
    /// The target wants a proof, and the initiator offers one.
    const fn guarded(self) -> bool {
        self.0 & 4 != 0
    }

    /// The target has to prove itself, too.
    const fn mutual(self) -> bool {
        self.0 & 8 != 0
    }

    /// The initiator's secret is a wrong one.
    const fn impostor(self) -> bool {
        self.0 & 16 != 0
    }

    /// The target's is.
    const fn decoy(self) -> bool {
        self.0 & 32 != 0
    }

    /// A session that only asks for targets.
    const fn discovery(self) -> bool {
        self.0 & 64 != 0
    }

    /// Of one side alone: the first text is not begun with the names that a login needs.
    const fn bare(self) -> bool {
        self.0 & 128 != 0
    }
}

const INITIATOR: &str = "iqn.2026-01.org.offhost:peer";
const TARGET: &str = "iqn.2026-01.org.offhost:fuzz";
const ISID: [u8; 6] = [0x40, 0, 0, 0, 0, 1];

fn target_alone(mut input: Input<'_>, options: Options) {
    let mut login = new_target(options);
    // The names are given often, so that what comes behind them is reached.
    let mut front: &[u8] = match options.bare() {
        true => b"",
        false => b"InitiatorName=iqn.2026-01.org.offhost:peer\0TargetName=iqn.2026-01.org.offhost:fuzz\0",
    };
    while !input.is_empty() {
        let request = LoginRequest { flags: input.byte(), ..Default::default() };
        let length = usize::from(input.short());
        let answer = login.handle(&request, &[front, input.take(length)].concat());
        front = b"";
        assert!(answer.text.len() <= MAX_SEGMENT as usize, "longer than a login PDU takes");
        match answer.outcome {
            Ok(None) => {}
            Ok(Some(logged_in)) => {
                assert!(!options.guarded(), "nobody guesses a hash");
                return check(&logged_in);
            }
            Err(_) => return,
        }
    }
}

fn initiator_alone(mut input: Input<'_>, options: Options) {
    let (mut login, _) = new_initiator(options);
    while !input.is_empty() {
        let response = LoginResponse { flags: input.byte(), isid: ISID, ..Default::default() };
        let length = usize::from(input.short());
        match login.handle(&response, input.take(length)) {
            Ok(Progress::Send(request)) => assert!(request.text.len() <= MAX_SEGMENT as usize, "longer than a login PDU takes"),
            Ok(Progress::Done(logged_in)) => {
                assert!(!(options.guarded() && options.mutual()), "nobody guesses a hash");
                return check(&logged_in);
            }
            Err(_) => return,
        }
    }
}

fn both(mut input: Input<'_>, options: Options) {
    let untouched = input.is_empty();
    let mut target = new_target(options);
    let (mut initiator, mut request) = new_initiator(options);
    let (let_in, come_in) = loop {
        change(&mut input, &mut request.header.flags, &mut request.text);
        let mut answer = target.handle(&request.header, &request.text);
        let (Ok(let_in), status) = (&answer.outcome, &mut answer.header.flags) else { return sound(untouched, options) };
        change(&mut input, status, &mut answer.text);
        match initiator.handle(&answer.header, &answer.text) {
            Ok(Progress::Send(next)) if let_in.is_none() => request = next,
            Ok(Progress::Send(_)) => break (let_in.clone(), None),
            Ok(Progress::Done(logged_in)) => break (let_in.clone(), Some(logged_in)),
            Err(_) => return sound(untouched, options),
        }
    };
    if let Some(logged_in) = &let_in {
        check(logged_in);
        assert!(!options.guarded() || logged_in.user.as_deref() == Some("user"), "let in without a proof");
        assert!(!(options.guarded() && options.impostor()), "let in with a wrong secret");
    }
    if let Some(logged_in) = &come_in {
        check(logged_in);
        assert!(!(options.guarded() && options.mutual() && options.decoy()), "a target with a wrong secret was believed");
    }
    assert!(!untouched || let_in == come_in, "both sides come to the same");
}

/// Only who lies is refused on a line that changes nothing.
fn sound(untouched: bool, options: Options) {
    let lies = options.guarded() && (options.impostor() || options.mutual() && options.decoy());
    assert!(!untouched || lies, "a login that breaks no rule is refused");
}

fn change(input: &mut Input<'_>, flags: &mut u8, text: &mut Vec<u8>) {
    for _ in 0..input.byte() & 3 {
        let (place, by) = (usize::from(input.short()), input.byte());
        match text.len() {
            _ if place == 0xFFFF => *flags = flags.wrapping_add(by),
            0 => text.push(by),
            length if by == 0 => text.truncate(place % length),
            length => text[place % length] = text[place % length].wrapping_add(by),
        }
    }
}

fn check(logged_in: &LoggedIn) {
    let parameters = &logged_in.parameters;
    assert!(parameters.max_send_data_segment_length >= 512 && parameters.max_burst_length >= 512);
    assert!(parameters.first_burst_length <= parameters.max_burst_length);
}

fn new_target(options: Options) -> TargetLogin {
    let entry = TargetEntry { name: TARGET.into(), addresses: vec!["127.0.0.1:3260,1".into()] };
    let gate: Arc<dyn Gate> =
        if options.guarded() { Arc::new(Guarded { entry, account: account(options.decoy()) }) } else { Arc::new(vec![entry]) };
    TargetLogin::new(TargetNames { gate, portal_group_tag: 1, tsih: 1 }, Wishes::default())
}

fn new_initiator(options: Options) -> (InitiatorLogin, protocol::iscsi::login::Request) {
    let secret = if options.impostor() { "no-sesame-at-all" } else { USER_SECRET };
    let mutual = options.mutual().then(|| credential("target", TARGET_SECRET));
    let account = Account::new(credential("user", secret), mutual).expect("two secrets");
    let names = InitiatorNames {
        initiator: INITIATOR.into(),
        target: (!options.discovery()).then(|| TARGET.into()),
        isid: ISID,
        cid: 0,
        chap: options.guarded().then(|| InitiatorPolicy { account, algorithms: Algorithm::ALL.to_vec(), nonce: nonce(9) }),
    };
    InitiatorLogin::new(names, Wishes::default())
}

const USER_SECRET: &str = "sesame-sesame-1";
const TARGET_SECRET: &str = "open-sesame-two";

/// Unlike on both sides: a challenge that comes back is a reflection, and refused.
const fn nonce(identifier: u8) -> Nonce {
    Nonce { identifier, challenge: [identifier; 32] }
}

fn credential(user: &str, secret: &str) -> Credential {
    Credential::new(user, Secret::new(secret).expect("long enough")).expect("a name")
}

fn account(decoy: bool) -> Account {
    let secret = if decoy { "no-open-sesame-at-all" } else { TARGET_SECRET };
    Account::new(credential("user", USER_SECRET), Some(credential("target", secret))).expect("two secrets")
}

/// Lets nobody in without a proof.
#[derive(Debug)]
struct Guarded {
    entry: TargetEntry,
    account: Account,
}

impl Gate for Guarded {
    fn admit(&self, visitor: &Visitor) -> Result<Admission, LoginStatus> {
        let policy = TargetPolicy { accounts: vec![self.account.clone()], algorithms: Algorithm::ALL.to_vec() };
        Ok(Admission { chap: Some((policy, nonce(7))), ..vec![self.entry.clone()].admit(visitor)? })
    }

    fn authorize(&self, _: &Visitor, _: Option<&str>) -> Result<(), LoginStatus> {
        Ok(())
    }

    fn targets(&self, _: &str) -> Vec<TargetEntry> {
        vec![self.entry.clone()]
    }
}
