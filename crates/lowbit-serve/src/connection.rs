//! A connection: its socket, which waits for no client for ever, and the requests on it.

use crate::seats::{Seat, Seats};
use crate::settings::Limits;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

/// Stands up when the connection ends, however it does.
struct Stand(Arc<Seats>, u64);

impl Drop for Stand {
    fn drop(&mut self) {
        self.0.leave(self.1);
    }
}

/// Answers the requests of a connection, one after the other, until it ends.
pub(crate) fn begin(socket: TcpStream, router: Router, limits: &Limits, seats: &Arc<Seats>, watcher: Watcher) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_time)
        .max_headers(limits.headers)
        .max_header_size(limits.header_bytes)
        .half_close(false);
    // A token is sent when it comes.
    let _ = socket.set_nodelay(true);
    let (write_time, all) = (limits.write_time, seats.clone());
    seats.seat(|seat: Arc<Seat>, id| {
        let task = async move {
            let _stand = Stand(all, id);
            let router = TowerToHyperService::new(router);
            let service = service_fn(move |request: hyper::Request<Incoming>| {
                let mut request: Request = request.map(Body::new);
                request.extensions_mut().insert(seat.clone());
                router.call(request)
            });
            let io = TokioIo::new(Patient { socket, write_time, stalled: None });
            // How it ended is of no interest: what was answered is counted.
            let _ = watcher.watch(builder.serve_connection(io, service)).await;
        };
        tokio::spawn(task).abort_handle()
    });
}

/// A socket whose writes fail when the other side takes nothing for a time.
struct Patient {
    socket: TcpStream,
    write_time: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Patient {
    /// The result of a write, or an error when there has been none for too long.
    fn judge<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(self.write_time)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Patient {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, to)
    }
}

impl AsyncWrite for Patient {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(context, from);
        self.judge(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(context, from);
        self.judge(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.socket).poll_flush(context);
        self.judge(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.socket).poll_shutdown(context);
        self.judge(context, shut)
    }
}
