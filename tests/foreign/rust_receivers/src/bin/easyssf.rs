//! The receiver of the crate `easyssf-receiver`, push and poll. Argument: its configuration.
//!
//! The crate leaves HTTP to the application: calls go out through `ureq`, pushes come in through
//! `tiny_http`.

use std::io::Read;

use async_trait::async_trait;
use easyssf_core::SsfSubject;
use easyssf_core::stream::SsfStreamConfiguration;
use easyssf_receiver::config::SsfReceiverConfig;
use easyssf_receiver::event::SsfEventContext;
use easyssf_receiver::http::{SsfHttpClient, SsfHttpRequest, SsfHttpResponse};
use easyssf_receiver::push::SsfPushHandler;
use easyssf_receiver::session::SsfSessionTerminator;
use easyssf_receiver::{BoxError, SsfReceiver};
use foreign::{obey, tell, text};
use serde_json::{Map, Value, json};
use tokio::runtime::{Handle, Runtime};

struct Out;

fn send(request: SsfHttpRequest) -> Result<SsfHttpResponse, BoxError> {
    let mut call = ureq::request(&request.method, request.url.as_str());
    if let Some(timeout) = request.timeout {
        call = call.timeout(timeout);
    }
    for (name, value) in &request.headers {
        call = call.set(name, value);
    }
    let answer = match request.body {
        Some(body) => call.send_string(&body),
        None => call.call(),
    };
    let answer = match answer {
        Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
        Err(error) => return Err(error.into()),
    };
    let mut response = SsfHttpResponse::new(answer.status(), "");
    for name in answer.headers_names() {
        response = response.with_header(&name, answer.header(&name).unwrap_or_default());
    }
    response.body = answer.into_string()?;
    Ok(response)
}

#[async_trait]
impl SsfHttpClient for Out {
    async fn execute(&self, request: SsfHttpRequest) -> Result<SsfHttpResponse, BoxError> {
        tokio::task::spawn_blocking(move || send(request)).await?
    }
}

struct Sessions;

#[async_trait]
impl SsfSessionTerminator for Sessions {
    async fn terminate_sessions(&self, subject: &SsfSubject) -> Result<usize, BoxError> {
        tell(json!({"ended": subject.email()}));
        Ok(1)
    }
}

async fn handle(context: SsfEventContext) -> Result<(), BoxError> {
    let token = context.event_token();
    for name in context.event_types() {
        tell(json!({
            "event": name, "payload": context.event_for(&name), "jti": token.jti(),
            "delivery": format!("{:?}", context.delivery_method()),
        }));
    }
    Ok(())
}

/// Answer pushes until the process ends.
fn serve(server: tiny_http::Server, handler: SsfPushHandler, runtime: Handle) {
    for mut request in server.incoming_requests() {
        let mut body = Vec::new();
        let limit = SsfPushHandler::MAX_SET_SIZE as u64 + 1;
        request.as_reader().take(limit).read_to_end(&mut body).unwrap();
        let header = |name: &'static str| {
            let found = request.headers().iter().find(|header| header.field.equiv(name));
            found.map(|header| header.value.as_str().to_owned())
        };
        let authorization = header("authorization");
        let answer = runtime.block_on(handler.handle(authorization.as_deref(), &body));
        tell(json!({
            "pushed": answer.status, "answered": answer.body,
            "content_type": header("content-type"), "accept": header("accept"),
        }));
        let response = tiny_http::Response::from_string(answer.body.unwrap_or_default());
        request.respond(response.with_status_code(answer.status)).unwrap();
    }
}

fn object(order: &Value, name: &str) -> Map<String, Value> {
    order[name].as_object().cloned().unwrap_or_default()
}

fn main() {
    let mut given: Value =
        serde_json::from_str(&std::env::args().nth(1).expect("a configuration")).unwrap();
    let server = tiny_http::Server::http("127.0.0.1:0").unwrap();
    if let Some(push) = given.get_mut("push").and_then(Value::as_object_mut) {
        let url = format!("http://{}/ssf/push", server.server_addr());
        push.insert("delivery-endpoint-url".into(), url.into());
    }
    let config: SsfReceiverConfig = serde_json::from_value(given).expect("its configuration");
    let runtime = Runtime::new().unwrap();
    let receiver = SsfReceiver::builder(config)
        .http_client(Out)
        .handler(handle)
        .session_terminator(Sessions)
        .build()
        .expect("its configuration is sound");
    let (handler, inside) = (receiver.push_handler(), runtime.handle().clone());
    std::thread::spawn(move || serve(server, handler, inside));
    let transmitter = receiver.transmitters().primary().expect("one transmitter").clone();
    let client = transmitter.stream_client().expect("it may call").clone();
    transmitter.stream_registrar().expect("it manages its stream").add_listener(|stream| {
        tell(json!({"registered": stream.claims()}));
    });
    let id = || transmitter.receiver_stream().stream_id().unwrap_or_default();
    obey(|order, members| {
        let done = runtime.block_on(async {
            Ok::<Value, easyssf_receiver::stream::SsfStreamError>(match order {
                "start" => {
                    receiver.start();
                    Value::Null
                }
                "verify" => {
                    let asked = transmitter.stream_verification();
                    json!(asked.request_verification(&client, &id()).await?)
                }
                "streams" => {
                    let streams = client.streams().await?;
                    streams.iter().map(|stream| json!(stream.claims())).collect()
                }
                "read" => json!(client.stream(&id()).await?.claims()),
                "update" => {
                    json!(client.update_stream(&id(), &object(members, "changes")).await?.claims())
                }
                "replace" => {
                    let wanted = SsfStreamConfiguration::new(object(members, "stream"));
                    json!(client.replace_stream(&id(), &wanted).await?.claims())
                }
                "status" => {
                    let status = client.status(&id()).await?;
                    json!([status.status, status.reason])
                }
                "set_status" => {
                    let (status, reason) = (text(members, "status"), text(members, "reason"));
                    let now = client.update_status(&id(), &status, Some(&reason)).await?;
                    json!([now.status, now.reason])
                }
                "add_subject" => {
                    json!(client.add_subject(&id(), &object(members, "subject"), true).await?)
                }
                "remove_subject" => {
                    json!(client.remove_subject(&id(), &object(members, "subject")).await?)
                }
                "health" => json!(receiver.health().await.status.as_str()),
                "stop" => {
                    receiver.shutdown().await;
                    Value::Null
                }
                other => panic!("no such order: {other}"),
            })
        });
        done.map_err(|error| error.to_string())
    });
}
