//! A TCP proxy that can be cut: connections break, and new ones are refused.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub struct Proxy {
    address: SocketAddr,
    to: u16,
    cut: Arc<watch::Sender<bool>>,
    listening: Option<JoinHandle<()>>,
}

impl Proxy {
    pub async fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut proxy = Self { address, to, cut: Arc::new(watch::Sender::new(false)), listening: None };
        proxy.listen(listener);
        proxy
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub async fn cut(&mut self) {
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ended = listening.await;
        }
        self.cut.send_replace(true);
    }

    pub async fn mend(&mut self) {
        self.cut.send_replace(false);
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        // Broken connections still linger on the port.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(self.address).unwrap();
        self.listen(socket.listen(128).unwrap());
    }

    fn listen(&mut self, listener: TcpListener) {
        let (to, cut) = (self.to, self.cut.clone());
        self.listening = Some(tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                let mut cut = cut.subscribe();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        }));
    }
}
