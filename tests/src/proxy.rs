//! A link that can be made to fail: a TCP proxy whose behaviour changes while it runs.
//!
//! What a lost network does to TCP is not to lose bytes but to hold them: both kernels keep
//! sending again, and what was on its way arrives when the link heals, however late. So a
//! black-holed link here holds what it was given and delivers it afterwards; [`Proxy::cut`]
//! before healing loses it for good, as a restart of either side would.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, poll};

use crate::address::Loopback;
use crate::{PATIENCE, eventually};

/// What a link does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Nothing listens: connecting fails at once, and what was connected is cut.
    Refuse,
    /// Nothing gets through, either way; connections stand, new ones seem to succeed.
    BlackHole,
    /// The server hears the client, the client hears nothing: requests are carried out and
    /// their outcome stays unknown.
    LoseReplies,
    /// The client's requests get nowhere; what the server sends arrives.
    LoseRequests,
    /// Passes everything on, this much later in each direction.
    Delay(Duration),
}

#[derive(Clone, Copy)]
enum Direction {
    Request,
    Reply,
}

impl Mode {
    fn passes(self, direction: Direction) -> bool {
        match self {
            Mode::Pass | Mode::Delay(_) => true,
            Mode::Refuse | Mode::BlackHole => false,
            Mode::LoseReplies => matches!(direction, Direction::Request),
            Mode::LoseRequests => matches!(direction, Direction::Reply),
        }
    }
}

struct State {
    mode: Mode,
    /// Grows with every cut: connections of an older number are over.
    cuts: u64,
    listening: bool,
    closing: bool,
    connections: Vec<(TcpStream, TcpStream)>,
}

struct Shared {
    target: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One link, until dropped.
pub struct Proxy {
    address: Loopback,
    port: u16,
    shared: Arc<Shared>,
    waker: UnixStream,
    accepting: Option<JoinHandle<Result<()>>>,
}

impl Proxy {
    /// Opens a link to `target`, passing everything on.
    ///
    /// # Errors
    ///
    /// When it cannot listen.
    pub fn start(target: SocketAddr) -> Result<Self> {
        let address = Loopback::claim()?;
        let listener = listen(address.port(target.port()))?;
        let (waker, woken) = UnixStream::pair()?;
        let shared = Arc::new(Shared {
            target,
            state: Mutex::new(State {
                mode: Mode::Pass,
                cuts: 0,
                listening: true,
                closing: false,
                connections: Vec::new(),
            }),
            changed: Condvar::new(),
        });
        let (accepting, local) = (Arc::clone(&shared), address.port(target.port()));
        let accepting = std::thread::spawn(move || accept(&accepting, local, listener, &woken));
        Ok(Proxy { address, port: target.port(), shared, waker, accepting: Some(accepting) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address.port(self.port)
    }

    /// The address as an http URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Changes what the link does, for what is connected as for what will be.
    ///
    /// # Errors
    ///
    /// When the link does not follow.
    pub fn set(&self, mode: Mode) -> Result<()> {
        self.shared.state().mode = mode;
        if mode == Mode::Refuse {
            self.cut();
        }
        self.shared.changed.notify_all();
        self.wake();
        eventually("the proxy to follow", PATIENCE, || {
            (self.shared.state().listening == (mode != Mode::Refuse)).then_some(())
        })
    }

    /// Ends every connection and loses what was on its way.
    pub fn cut(&self) {
        let mut state = self.shared.state();
        state.cuts += 1;
        for (client, server) in state.connections.drain(..) {
            // Either may be gone already.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    fn wake(&self) {
        // A full pipe wakes just as well.
        let _ = (&self.waker).write(&[0]);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.state().closing = true;
        self.cut();
        self.wake();
        if let Some(accepting) = self.accepting.take() {
            let ended = accepting.join();
            if !std::thread::panicking() {
                ended.expect("the proxy does not panic").expect("the proxy accepts");
            }
        }
    }
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).with_context(|| format!("listen on {address}"))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Accepts connections and opens or closes the listener as the mode wants.
fn accept(
    shared: &Arc<Shared>,
    address: SocketAddr,
    first: TcpListener,
    woken: &UnixStream,
) -> Result<()> {
    let mut listener = Some(first);
    woken.set_nonblocking(true)?;
    loop {
        {
            let mut state = shared.state();
            if state.closing {
                return Ok(());
            }
            match (&listener, state.mode) {
                (Some(_), Mode::Refuse) => listener = None,
                (None, mode) if mode != Mode::Refuse => listener = Some(listen(address)?),
                _ => {}
            }
            state.listening = listener.is_some();
        }
        let mut sources = vec![PollFd::from_borrowed_fd(woken.as_fd(), PollFlags::IN)];
        sources.extend(
            listener.iter().map(|open| PollFd::from_borrowed_fd(open.as_fd(), PollFlags::IN)),
        );
        match poll(&mut sources, None) {
            Err(rustix::io::Errno::INTR) => {}
            outcome => drop(outcome?),
        }
        // The byte only wakes; what to do is in the state.
        let _ = (&*woken).read(&mut [0; 64]);
        if let Some(Ok((client, _))) = listener.as_ref().map(TcpListener::accept) {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || connect(&shared, client));
        }
    }
}

/// Joins a new client to the server, when the link lets it.
fn connect(shared: &Arc<Shared>, client: TcpStream) {
    let cuts = shared.state().cuts;
    // A connection that is lost while it is made is what the client is there to cope with.
    if !wait_until_passing(shared, Direction::Request, cuts) {
        return;
    }
    let Ok(server) = TcpStream::connect(shared.target) else { return };
    let _ = join(shared, cuts, client, server);
}

fn join(shared: &Arc<Shared>, cuts: u64, client: TcpStream, server: TcpStream) -> Result<()> {
    client.set_nonblocking(false)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    {
        let mut state = shared.state();
        if state.cuts != cuts {
            return Ok(());
        }
        state.connections.push((client.try_clone()?, server.try_clone()?));
    }
    let (back_from, back_to) = (server.try_clone()?, client.try_clone()?);
    let replies = Arc::clone(shared);
    std::thread::spawn(move || pump(&replies, cuts, Direction::Reply, back_from, back_to));
    pump(shared, cuts, Direction::Request, client, server);
    Ok(())
}

/// Carries bytes one way until either side closes or the connection is cut.
fn pump(shared: &Shared, cuts: u64, direction: Direction, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = [0; 16 * 1024];
    loop {
        let taken = match from.read(&mut buffer) {
            Ok(taken) => taken,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => 0,
        };
        // The end of a connection does not get through a dead link either.
        if !wait_until_passing(shared, direction, cuts) {
            return;
        }
        // Looked up first: nobody may wait for the state while this one sleeps.
        let mode = shared.state().mode;
        if let Mode::Delay(delay) = mode {
            // Not a wait for anything: this is the delay itself.
            std::thread::sleep(delay);
        }
        if taken == 0 || to.write_all(&buffer[..taken]).is_err() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}

/// Blocks while the link is dead this way; false when the connection was cut meanwhile.
fn wait_until_passing(shared: &Shared, direction: Direction, cuts: u64) -> bool {
    let mut state = shared.state();
    while state.cuts == cuts && !state.closing && !state.mode.passes(direction) {
        state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
    }
    state.cuts == cuts && !state.closing
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long "nothing arrives" is watched.
    const A_WHILE: Duration = Duration::from_millis(150);

    /// A server that sends every byte back and keeps what it got.
    fn echo() -> (SocketAddr, Loopback, Arc<Mutex<Vec<u8>>>) {
        let address = Loopback::claim().unwrap();
        let listener = TcpListener::bind(address.port(7000)).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hearing = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hearing = Arc::clone(&hearing);
                std::thread::spawn(move || {
                    let mut byte = [0];
                    while matches!((&stream).read(&mut byte), Ok(1)) {
                        hearing.lock().unwrap().push(byte[0]);
                        let _ = (&stream).write_all(&byte);
                    }
                });
            }
        });
        (address.port(7000), address, heard)
    }

    fn hears(stream: &TcpStream, within: Duration) -> Option<u8> {
        let mut byte = [0];
        stream.set_read_timeout(Some(within)).unwrap();
        matches!((&*stream).read(&mut byte), Ok(1)).then_some(byte[0])
    }

    #[test]
    fn passes_and_delays() {
        let (target, _claim, _) = echo();
        let proxy = Proxy::start(target).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        (&stream).write_all(b"a").unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'a'));
        proxy.set(Mode::Delay(A_WHILE)).unwrap();
        let began = std::time::Instant::now();
        (&stream).write_all(b"b").unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'b'));
        assert!(began.elapsed() >= A_WHILE * 2, "{:?}", began.elapsed());
    }

    #[test]
    fn one_that_is_delayed_holds_up_no_other() {
        let (target, _claim, _) = echo();
        let proxy = Proxy::start(target).unwrap();
        let slow = TcpStream::connect(proxy.address()).unwrap();
        (&slow).write_all(b"1").unwrap();
        assert_eq!(hears(&slow, PATIENCE), Some(b'1'));
        proxy.set(Mode::Delay(PATIENCE)).unwrap();
        (&slow).write_all(b"2").unwrap();
        // It has been read by now and waits for its time.
        std::thread::sleep(A_WHILE);
        proxy.set(Mode::Pass).unwrap();
        let quick = TcpStream::connect(proxy.address()).unwrap();
        (&quick).write_all(b"3").unwrap();
        assert_eq!(hears(&quick, PATIENCE / 2), Some(b'3'));
        assert_eq!(hears(&slow, A_WHILE), None);
    }

    #[test]
    fn a_black_hole_holds_and_delivers_late() {
        let (target, _claim, heard) = echo();
        let proxy = Proxy::start(target).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        proxy.set(Mode::BlackHole).unwrap();
        (&stream).write_all(b"x").unwrap();
        let late = TcpStream::connect(proxy.address()).expect("seems to succeed");
        (&late).write_all(b"y").unwrap();
        assert_eq!(hears(&stream, A_WHILE), None);
        assert_eq!(hears(&late, A_WHILE), None);
        assert!(heard.lock().unwrap().is_empty());
        proxy.set(Mode::Pass).unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'x'));
        assert_eq!(hears(&late, PATIENCE), Some(b'y'));
    }

    #[test]
    fn a_cut_loses_what_was_held() {
        let (target, _claim, heard) = echo();
        let proxy = Proxy::start(target).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        (&stream).write_all(b"1").unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'1'));
        proxy.set(Mode::BlackHole).unwrap();
        (&stream).write_all(b"2").unwrap();
        proxy.cut();
        proxy.set(Mode::Pass).unwrap();
        assert_eq!(hears(&stream, PATIENCE), None, "the connection has ended");
        assert_eq!(*heard.lock().unwrap(), b"1");
    }

    #[test]
    fn replies_alone_can_be_lost() {
        let (target, _claim, heard) = echo();
        let proxy = Proxy::start(target).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        proxy.set(Mode::LoseReplies).unwrap();
        (&stream).write_all(b"r").unwrap();
        eventually("the request to arrive", PATIENCE, || {
            (*heard.lock().unwrap() == b"r").then_some(())
        })
        .unwrap();
        assert_eq!(hears(&stream, A_WHILE), None);
        proxy.set(Mode::Pass).unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'r'));
    }

    #[test]
    fn requests_alone_can_be_lost() {
        let (target, _claim, heard) = echo();
        let proxy = Proxy::start(target).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        proxy.set(Mode::LoseRequests).unwrap();
        (&stream).write_all(b"q").unwrap();
        assert_eq!(hears(&stream, A_WHILE), None);
        assert!(heard.lock().unwrap().is_empty());
        proxy.set(Mode::Pass).unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'q'));
    }

    #[test]
    fn refusing_cuts_and_refuses_until_healed() {
        let (target, _claim, _) = echo();
        let proxy = Proxy::start(target).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        (&stream).write_all(b"a").unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'a'));
        proxy.set(Mode::Refuse).unwrap();
        assert_eq!(hears(&stream, PATIENCE), None, "the connection has ended");
        let refused = TcpStream::connect(proxy.address()).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        proxy.set(Mode::Pass).unwrap();
        let stream = TcpStream::connect(proxy.address()).unwrap();
        (&stream).write_all(b"b").unwrap();
        assert_eq!(hears(&stream, PATIENCE), Some(b'b'));
    }
}
