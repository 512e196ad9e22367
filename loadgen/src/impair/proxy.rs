//! A UDP proxy with a bad network inside: one address to send to, one server behind it,
//! and for each source a socket of its own and a link each way. The network may change
//! while it runs: who holds the other end of [`ProxyConfig::impairment`] says so.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};

use super::link::{Impairment, Link, Tally};

/// Sources served at once; datagrams of more are dropped.
const SOURCES: usize = 4096;
/// A source that is silent for so long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// Datagrams between the listening socket and a source's task; of more, the newest are
/// dropped, like by a full socket buffer.
const INBOX: usize = 1024;
/// Longest UDP payload.
const DATAGRAM: usize = 65_535;

/// What the proxy does.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// The server behind it.
    pub to: SocketAddr,
    /// The network, for each direction; a new value holds from then on.
    pub impairment: watch::Receiver<Impairment>,
    /// Seed; source n uses seed + 2n and the number after it.
    pub seed: u64,
}

/// Which way a datagram goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Up,
    Down,
}

/// Serves on `listen` until dropped; `tally` hears of each source that ends.
///
/// # Errors
/// When the listening socket fails.
pub async fn serve(
    listen: UdpSocket,
    config: ProxyConfig,
    tally: mpsc::UnboundedSender<(Tally, Tally)>,
) -> io::Result<()> {
    let listen = Arc::new(listen);
    let mut sources: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
    let mut buffer = vec![0; DATAGRAM];
    let mut count = 0;
    loop {
        let (len, from) = match listen.recv_from(&mut buffer).await {
            Ok(received) => received,
            // An earlier datagram of ours was refused by its receiver.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(error) => return Err(error),
        };
        if sources.get(&from).is_none_or(mpsc::Sender::is_closed) {
            sources.retain(|_, inbox| !inbox.is_closed());
            if sources.len() >= SOURCES {
                continue;
            }
            let (inbox, datagrams) = mpsc::channel(INBOX);
            let seeds = config.seed.wrapping_add(2 * count);
            let source = Source::open(Arc::clone(&listen), from, &config, seeds).await?;
            tokio::spawn(source.run(datagrams, tally.clone()));
            sources.insert(from, inbox);
            count += 1;
        }
        if let Some(inbox) = sources.get(&from) {
            let _ = inbox.try_send(buffer[..len].to_vec());
        }
    }
}

struct Source {
    listen: Arc<UdpSocket>,
    from: SocketAddr,
    server: UdpSocket,
    impairment: watch::Receiver<Impairment>,
    up: Link<()>,
    down: Link<()>,
}

impl Source {
    async fn open(
        listen: Arc<UdpSocket>,
        from: SocketAddr,
        config: &ProxyConfig,
        seed: u64,
    ) -> io::Result<Self> {
        let any: SocketAddr =
            if config.to.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
        let server = UdpSocket::bind(any).await?;
        server.connect(config.to).await?;
        let mut impairment = config.impairment.clone();
        let current = *impairment.borrow_and_update();
        let (up, down) = (Link::new(current, seed), Link::new(current, seed.wrapping_add(1)));
        Ok(Self { listen, from, server, impairment, up, down })
    }

    async fn run(
        mut self,
        mut datagrams: mpsc::Receiver<Vec<u8>>,
        tally: mpsc::UnboundedSender<(Tally, Tally)>,
    ) {
        let mut buffer = vec![0; DATAGRAM];
        let mut idle = Instant::now() + IDLE;
        loop {
            let next = [self.up.poll_timeout(), self.down.poll_timeout()];
            let due = next.into_iter().flatten().fold(idle, Instant::min);
            tokio::select! {
                datagram = datagrams.recv() => match datagram {
                    Some(datagram) => self.take(Way::Up, &datagram, &mut idle),
                    None => break,
                },
                received = self.server.recv(&mut buffer) => {
                    if let Ok(len) = received {
                        self.take(Way::Down, &buffer[..len], &mut idle);
                    }
                }
                // Nobody is left to change it: the branch is off, and the rest goes on.
                Ok(()) = self.impairment.changed() => self.change(),
                () = tokio::time::sleep_until(due.into()) => {}
            }
            self.deliver().await;
            if Instant::now() >= idle {
                break;
            }
        }
        let _ = tally.send((self.up.tally(), self.down.tally()));
    }

    fn change(&mut self) {
        let current = *self.impairment.borrow_and_update();
        self.up.change(current);
        self.down.change(current);
    }

    fn take(&mut self, way: Way, datagram: &[u8], idle: &mut Instant) {
        let now = Instant::now();
        *idle = now + IDLE;
        let link = if way == Way::Up { &mut self.up } else { &mut self.down };
        link.handle(now, datagram, ());
    }

    async fn deliver(&mut self) {
        let now = Instant::now();
        // A datagram that cannot be sent is one lost on the way.
        while let Some((datagram, ())) = self.up.poll(now) {
            let _ = self.server.send(&datagram).await;
        }
        while let Some((datagram, ())) = self.down.poll(now) {
            let _ = self.listen.send_to(&datagram, self.from).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    /// A server that sends everything back, the proxy before it, and `count` clients.
    async fn through(
        impairment: Impairment,
        count: usize,
    ) -> (Vec<UdpSocket>, watch::Sender<Impairment>) {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let to = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((len, from)) = server.recv_from(&mut buffer).await {
                server.send_to(&buffer[..len], from).await.unwrap();
            }
        });
        let listen = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = listen.local_addr().unwrap();
        let (tally, tallies) = mpsc::unbounded_channel();
        let (network, impairment) = watch::channel(impairment);
        tokio::spawn(serve(listen, ProxyConfig { to, impairment, seed: 3 }, tally));
        let mut clients = Vec::new();
        for _ in 0..count {
            let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            client.connect(at).await.unwrap();
            clients.push(client);
        }
        // Sources that end have nobody to tell, and nothing here asks them.
        drop(tallies);
        (clients, network)
    }

    #[tokio::test]
    async fn each_source_gets_its_own_answers_after_the_delay_both_ways() {
        let delay = Duration::from_millis(20);
        let impairment = Impairment { delay, ..Impairment::default() };
        let (clients, _network) = through(impairment, 2).await;
        let begun = Instant::now();
        for (number, client) in clients.iter().enumerate() {
            client.send(&[number as u8; 10]).await.unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let mut buffer = [0; 64];
            let len = tokio::time::timeout(LIMIT, client.recv(&mut buffer)).await.unwrap().unwrap();
            assert_eq!(&buffer[..len], [number as u8; 10]);
        }
        assert!(begun.elapsed() >= 2 * delay);
    }

    #[tokio::test]
    async fn a_change_holds_for_sources_that_are_there_and_for_new_ones() {
        let (clients, network) = through(Impairment::default(), 2).await;
        let echo = async |client: &UdpSocket| {
            client.send(&[7]).await.unwrap();
            let mut buffer = [0; 8];
            let came = tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer));
            came.await.is_ok()
        };
        assert!(echo(&clients[0]).await);
        network.send_replace(Impairment { loss: 1.0, ..Impairment::default() });
        // The task of a source hears of it beside its datagrams.
        let deadline = Instant::now() + LIMIT;
        while echo(&clients[0]).await {
            assert!(Instant::now() < deadline);
        }
        assert!(!echo(&clients[1]).await);
        network.send_replace(Impairment::default());
        while !echo(&clients[0]).await {
            assert!(Instant::now() < deadline);
        }
        drop(network);
        assert!(echo(&clients[1]).await, "it goes on when nobody is left to change it");
    }

    #[tokio::test]
    async fn what_is_lost_is_lost_by_the_seed() {
        let impairment = Impairment { loss: 0.5, ..Impairment::default() };
        let (clients, _network) = through(impairment, 1).await;
        let mut link: Link<()> = Link::new(impairment, 3);
        let mut back: Link<()> = Link::new(impairment, 4);
        let mut expected = Vec::new();
        let now = Instant::now();
        for number in 0..100u8 {
            link.handle(now, &[number], ());
            while let Some((datagram, ())) = link.poll(now) {
                back.handle(now, &datagram, ());
            }
            expected.extend(std::iter::from_fn(|| back.poll(now)).map(|(d, ())| d[0]));
            clients[0].send(&[number]).await.unwrap();
        }
        let mut came = Vec::new();
        while came.len() < expected.len() {
            let mut buffer = [0; 8];
            tokio::time::timeout(LIMIT, clients[0].recv(&mut buffer)).await.unwrap().unwrap();
            came.push(buffer[0]);
        }
        assert_eq!(came, expected);
    }
}
