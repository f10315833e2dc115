//! HTTP: accepts connections, has requests answered, and sends the answers well or badly.

use std::{
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::{Core, answers::Answer, control, faults::Act, requests::Asked};

type Body = BoxBody<Bytes, io::Error>;

/// What an endless answer is made of.
const CHUNK: Bytes = Bytes::from_static(&[b'x'; 1 << 16]);

/// Long enough for half an answer to be sent.
const FLUSHED: Duration = Duration::from_millis(20);

/// What is announced and never all sent.
const HUGE: u64 = 1 << 40;

/// Serves until the task is aborted; its connections end with it.
pub async fn serve(core: Arc<Core>, listener: TcpListener) -> Infallible {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        core.connections.fetch_add(1, Ordering::SeqCst);
        let core = core.clone();
        connections.spawn(async move {
            let service = service_fn(|request| respond(core.clone(), request));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A listener at an address, also right after the last one there was closed.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn respond(core: Arc<Core>, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
    let path = request.uri().path().to_owned();
    if let Some(what) = path.strip_prefix(control::PREFIX) {
        let (method, what) = (request.method().clone(), what.to_owned());
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let answer = blocking(move || control::answer(&core, &method, &what, &body)).await;
        return Ok(well(answer));
    }
    let asked = Asked::new(&request);
    core.counts.note(&asked);
    let acts = core.faults.acts(&asked);
    let (inner, head) = (core.clone(), asked.method == Method::HEAD);
    let _in_flight = core.counts.enter();
    for act in &acts {
        if let Some(delay) = act.delay() {
            tokio::time::sleep(delay).await;
        }
    }
    let pushes = acts.clone();
    let uri = asked.uri.clone();
    let answer = blocking(move || {
        inner.pushed(&pushes);
        inner.answer(&asked)
    });
    badly(acts.last(), answer.await, head, &uri).await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("answering does not panic")
}

fn well(answer: Answer) -> Response<Body> {
    let body = Full::new(answer.body.clone()).map_err(|never: Infallible| match never {}).boxed();
    with_body(answer, body)
}

fn with_body(answer: Answer, body: Body) -> Response<Body> {
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response = response
        .header("vary", "origin")
        .header("access-control-allow-credentials", "true")
        .header("access-control-expose-headers", "x-request-id")
        .header("x-request-id", request_id());
    response.body(body).expect("these headers are text")
}

/// A name for each request, in the form of a UUID.
fn request_id() -> String {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    format!("00000000-0000-4000-8000-{:012x}", REQUESTS.fetch_add(1, Ordering::Relaxed))
}

/// The answer, spoilt as the rule says.
async fn badly(
    act: Option<&Act>,
    answer: Answer,
    head: bool,
    uri: &str,
) -> Result<Response<Body>, io::Error> {
    let replaced =
        |status, body: &'static str| Answer { status, body: body.into(), headers: answer.headers.clone() };
    Ok(match act {
        None | Some(Act::Delay(_) | Act::Push(_) | Act::PushImport(..)) => well(answer),
        Some(Act::Status(500)) => well(Answer::internal()),
        Some(Act::Status(status)) => well(Answer::error(*status, "as asked")),
        Some(Act::RetryAfter(status, after)) => {
            well(Answer::error(*status, "as asked").with("retry-after", after.to_string()))
        }
        Some(Act::Drop) => return Err(io::Error::other("dropped, as asked")),
        Some(Act::BlackHole) => std::future::pending().await,
        Some(Act::Truncate) => truncated(answer),
        Some(Act::WrongBytes) => wrong(answer, head),
        Some(Act::Empty) => well(replaced(200, "")),
        Some(Act::Garbage) => {
            well(Answer::new(200, "application/json", r#"{"req_result":true,"data":[{"na"#))
        }
        Some(Act::Redirect) => well(Answer::new(307, "text/plain", "").with("location", uri.to_owned())),
        Some(Act::RedirectTo(place)) => {
            well(Answer::new(307, "text/plain", "").with("location", place.clone()))
        }
        Some(Act::Endless) => with_body(answer, endless()),
        Some(Act::Huge) => with_body(answer.with("content-length", HUGE.to_string()), endless()),
        Some(Act::Drip(millis)) => {
            let body = drip(answer.body.clone(), Duration::from_millis(*millis));
            let len = answer.body.len().to_string();
            with_body(answer.with("content-length", len), body)
        }
    })
}

fn truncated(answer: Answer) -> Response<Body> {
    let announced = answer.body.len().max(2);
    let half = answer.body.slice(..answer.body.len() / 2);
    let first = stream::once(async { Ok(Frame::data(half)) });
    // What was sent reaches the wire while the body has nothing to give.
    let broken = stream::once(async {
        tokio::time::sleep(FLUSHED).await;
        Err(io::Error::other("broken off, as asked"))
    });
    let body = BoxBody::new(StreamBody::new(sync::Checked::new(first.chain(broken))));
    with_body(answer.with("content-length", announced.to_string()), body)
}

fn wrong(answer: Answer, head: bool) -> Response<Body> {
    if head {
        let body = [&answer.body[..], b"x"].concat().into();
        return well(Answer { body, ..answer });
    }
    let mut body = answer.body.to_vec();
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
    well(Answer { body: body.into(), ..answer })
}

fn endless() -> Body {
    BodyExt::boxed(StreamBody::new(stream::iter(std::iter::repeat_with(|| Ok(Frame::data(CHUNK))))))
}

fn drip(body: Bytes, pause: Duration) -> Body {
    let frames = stream::unfold(body, move |mut left| async move {
        if left.is_empty() {
            return None;
        }
        tokio::time::sleep(pause).await;
        Some((Ok(Frame::data(left.split_to(1))), left))
    });
    // A sleeping body is no `Sync` one by itself.
    BoxBody::new(StreamBody::new(sync::Checked::new(frames)))
}

mod sync {
    //! A stream that is only ever polled by its owner, as something that may be shared.

    use std::{
        pin::Pin,
        sync::Mutex,
        task::{Context, Poll},
    };

    use futures_util::stream::Stream;

    pub struct Checked<S>(Mutex<Pin<Box<S>>>);

    impl<S> Checked<S> {
        pub fn new(stream: S) -> Checked<S> {
            Checked(Mutex::new(Box::pin(stream)))
        }
    }

    impl<S: Stream> Stream for Checked<S> {
        type Item = S::Item;

        fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
            self.0.lock().unwrap().as_mut().poll_next(context)
        }
    }
}
