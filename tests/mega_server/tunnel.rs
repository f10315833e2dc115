//! A proxy between a client and a server that speaks https: CONNECT, and bytes both ways.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Longer than any request for a tunnel.
const HEAD_MAX_BYTES: usize = 8 << 10;

/// What becomes of a request for a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// There is one, to the server, whatever host was asked for.
    Open,
    /// This status.
    Refuse(u16),
    /// No answer.
    Silent,
    /// A tunnel that ends as soon as the client has said something through it.
    Cut,
}

/// A running proxy. It and its tunnels end with the runtime of whoever started it, or when it is dropped.
pub struct Tunnel {
    address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    manner: Arc<Mutex<Manner>>,
    accepting: JoinHandle<()>,
}

impl Tunnel {
    /// A proxy whose tunnels all lead to `server`.
    pub async fn to(server: SocketAddr) -> Tunnel {
        let listener = TcpListener::bind(super::LOCAL).await.unwrap();
        let address = listener.local_addr().unwrap();
        let heads = Arc::<Mutex<Vec<String>>>::default();
        let manner = Arc::new(Mutex::new(Manner::Open));
        let (seen, now) = (heads.clone(), manner.clone());
        let accepting = tokio::spawn(async move {
            let mut tunnels = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let (seen, now) = (seen.clone(), now.clone());
                tunnels.spawn(async move {
                    // A client that breaks off is none of the proxy's business.
                    let _ = dig(client, server, &seen, &now).await;
                });
            }
        });
        Tunnel { address, heads, manner, accepting }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From the next connection on.
    pub fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    /// The requests for tunnels since this was last asked: all that a client said before it was let through.
    pub fn take_heads(&self) -> Vec<String> {
        std::mem::take(&mut self.heads.lock().unwrap())
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn dig(
    mut client: TcpStream,
    server: SocketAddr,
    heads: &Mutex<Vec<String>>,
    manner: &Mutex<Manner>,
) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") && head.len() < HEAD_MAX_BYTES {
        head.push(client.read_u8().await?);
    }
    heads.lock().unwrap().push(String::from_utf8_lossy(&head).into_owned());
    let manner = *manner.lock().unwrap();
    match manner {
        Manner::Silent => std::future::pending().await,
        Manner::Refuse(status) => {
            client.write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
            return client.shutdown().await;
        }
        Manner::Open | Manner::Cut => {}
    }
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    if manner == Manner::Cut {
        client.read_u8().await?;
        return Ok(());
    }
    let mut onward = TcpStream::connect(server).await?;
    tokio::io::copy_bidirectional(&mut client, &mut onward).await?;
    Ok(())
}
