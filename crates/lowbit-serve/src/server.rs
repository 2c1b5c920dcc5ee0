//! The server: listens, answers, and ends when it is asked to.

use crate::app::App;
use crate::seats::{Room, Seats};
use crate::served::Served;
use crate::settings::Settings;
use crate::{api, connection};
use axum::Router;
use hyper_util::server::graceful::GracefulShutdown;
use lowbit_base::{Error, Kind, Stop};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{sleep, timeout};

/// How often the server looks whether it is to end.
const LOOK: Duration = Duration::from_millis(50);
/// Time to tell a client that there is no room.
const FAREWELL: Duration = Duration::from_secs(1);
/// Threads that answer connections, and those that read prompts; the model has its own.
const THREADS: [usize; 2] = [2, 4];

/// A server that listens: connections wait until it runs.
pub struct Server {
    settings: Settings,
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Begins to listen.
    ///
    /// # Errors
    /// Of kind usage when others than this machine could connect without a key, or the host is no address; of kind io when the
    /// port is taken.
    pub fn bind(settings: Settings) -> Result<Self, Error> {
        let at = format!("{}:{}", settings.host, settings.port);
        let addresses = (&*settings.host, settings.port).to_socket_addrs();
        let addresses: Vec<SocketAddr> =
            addresses.map_err(|e| Error::usage(format!("--host {}: {e}", settings.host)))?.collect();
        if settings.key.is_none() && addresses.iter().any(|address| !address.ip().is_loopback()) {
            let text = "others than this machine could connect to";
            return Err(Error::usage(format!(
                "{text} {at}: give --api-key (or LOWBIT_API_KEY), or listen on 127.0.0.1"
            )));
        }
        let refused = |e: std::io::Error| {
            Error::new(Kind::Io, format!("{at}: cannot listen: {e}; take another --port, or end what listens there"))
        };
        let listener = TcpListener::bind(&addresses[..]).map_err(refused)?;
        listener.set_nonblocking(true).map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Server { settings, listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers requests until `stop` is set; then answers under way have the time of [`Limits::drain_time`](crate::Limits) to end.
    ///
    /// # Errors
    /// When the operating system gives no threads.
    pub fn run(self, served: Served, stop: &Stop) -> Result<(), Error> {
        let failed = |e: std::io::Error| Error::new(Kind::Io, format!("the server cannot start: {e}"));
        let [connections, prompts] = THREADS;
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(connections).max_blocking_threads(prompts).thread_name("http");
        let runtime: Runtime = builder.enable_all().build().map_err(failed)?;
        let app = App::new(self.settings, served)?;
        let outcome = runtime.block_on(serve(self.listener, app.clone(), stop)).map_err(failed);
        app.abort();
        app.end();
        runtime.shutdown_timeout(FAREWELL);
        outcome
    }
}

/// Accepts connections until it is to stop, then waits for their answers.
async fn serve(listener: TcpListener, app: Arc<App>, stop: &Stop) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let (router, graceful) = (api::router(app.clone()), GracefulShutdown::new());
    let seats = Seats::new(app.settings.limits.connections);
    while !stop.is_set() {
        match timeout(LOOK, listener.accept()).await {
            Err(_) => {}
            Ok(Ok((socket, _))) => seat(socket, &router, &app, &seats, &graceful).await,
            // No more files: a connection that waits gives its own.
            Ok(Err(_)) => {
                seats.make_room(true);
                sleep(LOOK).await;
            }
        }
    }
    drop(listener);
    app.stopping.store(true, Ordering::Relaxed);
    let ended = timeout(app.settings.limits.drain_time, graceful.shutdown());
    if ended.await.is_err() {
        // Streams get an error as their last event.
        app.abort();
        sleep(FAREWELL).await;
    }
    seats.clear();
    Ok(())
}

/// Begins a connection when there is room for it.
async fn seat(socket: TcpStream, router: &Router, app: &App, seats: &Arc<Seats>, graceful: &GracefulShutdown) {
    loop {
        match seats.make_room(false) {
            Room::Free => break,
            Room::Later(time) => sleep(time).await,
            Room::None => {
                tokio::spawn(timeout(FAREWELL, farewell(socket, seats.count())));
                return;
            }
        }
    }
    connection::begin(socket, router.clone(), &app.settings.limits, seats, graceful.watcher());
}

/// Tells a client that there is no room.
async fn farewell(mut socket: TcpStream, connections: usize) {
    let refusal = crate::refusal::Refusal::busy(connections);
    let status = refusal.status;
    let body = refusal.body();
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let _ = socket.write_all(head.as_bytes()).await;
    let _ = socket.write_all(body.as_bytes()).await;
    let _ = socket.shutdown().await;
}
