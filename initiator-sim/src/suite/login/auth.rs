//! Authentication: methods that are and are not there, and CHAP by a peer that breaks its rules.
//!
//! What wants credentials is skipped without them: `--chap-user` and `--chap-secret-file` name those of the target under test.

use super::{SUCCESS, names};
use crate::client::Authentication;
use crate::suite::check::{Outcome, ensure, equal, fail, skip};
use crate::suite::raw::{LoginAnswer, LoginHeader, OPERATIONAL, RawConnection, SECURITY};
use crate::suite::{Bench, Case, Needs};
use protocol::iscsi::chap::{Algorithm, binary_value, hex_constant};

pub const CASES: &[Case] = &[
    Case::new("auth-unknown-method", "RFC 7143, AuthMethod", Needs::Target, |bench| Box::pin(unknown_method(bench))),
    Case::new("auth-out-of-place", "RFC 7143, CHAP keys without AuthMethod=CHAP", Needs::Target, |bench| {
        Box::pin(out_of_place(bench))
    }),
    Case::new("auth-skipped", "RFC 7143, Login Phase: authentication required", Needs::Target, |bench| Box::pin(skipped(bench))),
    Case::new("chap-right-secret", "RFC 7143, CHAP", Needs::Target, |bench| Box::pin(right_secret(bench))),
    Case::new("chap-wrong-secret", "RFC 7143, CHAP", Needs::Target, |bench| Box::pin(wrong_secret(bench))),
    Case::new("chap-wrong-name", "RFC 7143, CHAP_N", Needs::Target, |bench| Box::pin(wrong_name(bench))),
    Case::new("chap-unknown-algorithm", "RFC 7143, CHAP_A", Needs::Target, |bench| Box::pin(unknown_algorithm(bench))),
    Case::new("chap-new-challenge", "RFC 7143, CHAP considerations: challenges are not used again", Needs::Target, |bench| {
        Box::pin(new_challenge(bench))
    }),
    Case::new("chap-reflected-challenge", "RFC 7143, CHAP considerations: reflection", Needs::Target, |bench| {
        Box::pin(reflected_challenge(bench))
    }),
    Case::new("chap-long-response", "RFC 7143, CHAP_R", Needs::Target, |bench| Box::pin(long_response(bench))),
];

/// Status-Class 2, Status-Detail: RFC 7143 (11.13.5).
const AUTHENTICATION_FAILURE: (u8, u8) = (0x02, 0x01);

/// In the security stage, without leaving it.
fn staying() -> LoginHeader {
    LoginHeader { current: SECURITY, next: OPERATIONAL, transit: false, ..LoginHeader::default() }
}

fn credentials(bench: &Bench) -> Outcome<&Authentication> {
    match &bench.devices().options.authentication {
        Some(authentication) => Ok(authentication),
        None => skip("no credentials are named (--chap-user, --chap-secret-file)"),
    }
}

fn user<'a>(bench: &'a Bench, authentication: &'a Authentication) -> &'a str {
    authentication.user.as_deref().or(bench.devices().unit.user.as_deref()).unwrap_or_default()
}

async fn unknown_method(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let keys = [&names(bench)[..], &[("AuthMethod", "X-com.example.nobody")]].concat();
    let answer = connection.login(staying(), &keys).await?;
    equal("status of a method that nobody has", answer.status(), AUTHENTICATION_FAILURE)
}

async fn out_of_place(bench: &Bench) -> Outcome {
    let mut connection = bench.raw().await?;
    let keys = [&names(bench)[..], &[("CHAP_N", "nobody"), ("CHAP_R", "0x00")]].concat();
    let answer = connection.login(staying(), &keys).await?;
    // Refused, or the keys are; what must not be is that they count for something.
    let taken = answer.status() == SUCCESS && answer.keys.iter().any(|(key, _)| key.starts_with("CHAP_"));
    ensure(!taken, || format!("CHAP out of place was answered with {:?}", answer.keys))
}

/// A target with credentials must be got past neither by its operational stage nor by `None`.
async fn skipped(bench: &Bench) -> Outcome {
    credentials(bench)?;
    let mut connection = bench.raw().await?;
    let answer = connection.login(LoginHeader::default(), &names(bench)).await?;
    equal("status of a login that begins behind the authentication", answer.status(), AUTHENTICATION_FAILURE)?;
    let mut connection = bench.raw().await?;
    let keys = [&names(bench)[..], &[("AuthMethod", "None")]].concat();
    let answer = connection.login(LoginHeader { transit: true, ..staying() }, &keys).await?;
    equal("status of AuthMethod=None", answer.status(), AUTHENTICATION_FAILURE)
}

/// A connection with a challenge of the target's.
struct Challenged {
    connection: RawConnection,
    header: LoginHeader,
    algorithm: Algorithm,
    identifier: u8,
    challenge: Vec<u8>,
}

async fn challenge(bench: &Bench) -> Outcome<Challenged> {
    let (mut connection, header) = (bench.raw().await?, staying());
    let keys = [&names(bench)[..], &[("AuthMethod", "CHAP,None")]].concat();
    let answer = connection.login(header, &keys).await?;
    equal("status of an offer of CHAP", answer.status(), SUCCESS)?;
    if answer.key("AuthMethod") != Some("CHAP") {
        return skip(format!("the target asks for no CHAP, but answers {:?}", answer.key("AuthMethod")));
    }
    // MD5 is what every target has to know: RFC 7143 (12.1.3).
    let answer = connection.login(header, &[("CHAP_A", "5")]).await?;
    equal("status of CHAP_A=5", answer.status(), SUCCESS)?;
    equal("answer to CHAP_A=5", answer.key("CHAP_A"), Some("5"))?;
    let identifier = answer.key("CHAP_I").and_then(|text| text.parse().ok());
    let challenge = answer.key("CHAP_C").and_then(|text| binary_value(text, 1024)).filter(|challenge| !challenge.is_empty());
    match (identifier, challenge) {
        (Some(identifier), Some(challenge)) => {
            Ok(Challenged { connection, header, algorithm: Algorithm::Md5, identifier, challenge })
        }
        _ => fail(format!("no challenge in {:?}", answer.keys)),
    }
}

impl Challenged {
    async fn answer(mut self, name: &str, response: &str, more: &[(&str, &str)]) -> Outcome<LoginAnswer> {
        let keys = [&[("CHAP_N", name), ("CHAP_R", response)][..], more].concat();
        self.connection.login(LoginHeader { transit: true, ..self.header }, &keys).await
    }

    fn response(&self, authentication: &Authentication) -> String {
        hex_constant(&self.algorithm.response(self.identifier, &authentication.secret, &self.challenge))
    }
}

async fn right_secret(bench: &Bench) -> Outcome {
    let authentication = credentials(bench)?;
    let challenged = challenge(bench).await?;
    let response = challenged.response(authentication);
    let answer = challenged.answer(user(bench, authentication), &response, &[]).await?;
    equal("status of the right response", answer.status(), SUCCESS)
}

async fn wrong_secret(bench: &Bench) -> Outcome {
    let authentication = credentials(bench)?;
    let mut challenged = challenge(bench).await?;
    // The right response to another challenge.
    challenged.challenge[0] ^= 1;
    let response = challenged.response(authentication);
    let answer = challenged.answer(user(bench, authentication), &response, &[]).await?;
    equal("status of a wrong response", answer.status(), AUTHENTICATION_FAILURE)
}

async fn wrong_name(bench: &Bench) -> Outcome {
    let authentication = credentials(bench)?;
    let challenged = challenge(bench).await?;
    let response = challenged.response(authentication);
    let answer = challenged.answer("nobody-has-this-name", &response, &[]).await?;
    equal("status of a wrong name", answer.status(), AUTHENTICATION_FAILURE)
}

async fn unknown_algorithm(bench: &Bench) -> Outcome {
    credentials(bench)?;
    let (mut connection, header) = (bench.raw().await?, staying());
    let keys = [&names(bench)[..], &[("AuthMethod", "CHAP")]].concat();
    let answer = connection.login(header, &keys).await?;
    equal("status of an offer of CHAP", answer.status(), SUCCESS)?;
    // Begins with a 5, to catch those that look at one digit.
    let answer = connection.login(header, &[("CHAP_A", "56")]).await?;
    equal("status of CHAP_A=56", answer.status(), AUTHENTICATION_FAILURE)
}

async fn new_challenge(bench: &Bench) -> Outcome {
    credentials(bench)?;
    let (first, second) = (challenge(bench).await?, challenge(bench).await?);
    ensure(first.challenge != second.challenge, || "two logins got the same challenge".into())
}

/// The target's own challenge comes back as a question: an answer would be the very response that is asked for.
async fn reflected_challenge(bench: &Bench) -> Outcome {
    let authentication = credentials(bench)?;
    let challenged = challenge(bench).await?;
    let (response, question) = (challenged.response(authentication), hex_constant(&challenged.challenge));
    let identifier = challenged.identifier.to_string();
    let more = [("CHAP_I", identifier.as_str()), ("CHAP_C", question.as_str())];
    let answer = challenged.answer(user(bench, authentication), &response, &more).await?;
    equal("status of a reflected challenge", answer.status(), AUTHENTICATION_FAILURE)
}

async fn long_response(bench: &Bench) -> Outcome {
    let authentication = credentials(bench)?;
    let challenged = challenge(bench).await?;
    let response = challenged.response(authentication) + "00";
    let answer = challenged.answer(user(bench, authentication), &response, &[]).await?;
    equal("status of a response that is too long", answer.status(), AUTHENTICATION_FAILURE)
}
