//! The poll receiver of the crate `saml2-sp`. Arguments: the transmitter, a bearer token.

use std::sync::Arc;

use foreign::{obey, tell, text};
use saml2_sp::{Logger, MemorySessionIndex, ReceiverOptions, SessionRecord, SignalsReceiver};
use serde_json::{Value, json};

/// How often it asks for SETs, in milliseconds.
const POLL_EVERY_MS: u64 = 200;

struct Log;

impl Logger for Log {
    fn info(&self, message: &str) {
        tell(json!({"said": message, "level": "info"}));
    }
    fn warn(&self, message: &str) {
        tell(json!({"said": message, "level": "warn"}));
    }
    fn error(&self, message: &str) {
        tell(json!({"said": message, "level": "error"}));
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let transmitter = arguments.next().expect("the transmitter's address");
    let authorization = format!("Bearer {}", arguments.next().expect("a bearer token"));
    let sessions = Arc::new(MemorySessionIndex::new(0));
    let receiver = SignalsReceiver::new(ReceiverOptions {
        transmitter,
        description: "a service provider's".into(),
        poll_interval_ms: POLL_EVERY_MS,
        headers: Some(Arc::new(move || vec![("authorization".into(), authorization.clone())])),
        session_index: Some(sessions.clone()),
        on_end_sessions: Some(Arc::new(|ended, signal| {
            tell(json!({"ended": ended, "jti": signal.jti}));
            Ok(())
        })),
        log: Some(Arc::new(Log)),
        ..ReceiverOptions::default()
    })
    .expect("its options are sound");
    receiver.on("*", |signal| {
        tell(json!({
            "event": signal.event_type, "payload": signal.payload, "subject": signal.subject,
            "jti": signal.jti, "txn": signal.txn,
        }));
        Ok(())
    });
    obey(|order, members| match order {
        "start" => {
            receiver.start().map_err(|error| error.to_string())?;
            Ok(Value::Object(receiver.stream()))
        }
        "verify" => {
            receiver.verify(&text(members, "state")).map_err(|error| error.to_string())?;
            Ok(Value::Null)
        }
        "sign_in" => {
            sessions.add(SessionRecord {
                local_id: text(members, "session"),
                person: String::new(),
                email: text(members, "email"),
                idp_session: String::new(),
                expires_at_ms: None,
            });
            Ok(Value::Null)
        }
        "stop" => {
            receiver.stop();
            Ok(Value::Null)
        }
        other => Err(format!("no such order: {other}")),
    });
}
