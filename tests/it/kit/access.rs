//! Clients of etcd, by gRPC.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::network;

/// How a client reaches an etcd: address, network namespace and the certificates for people.
#[derive(Clone, Debug)]
pub struct Access {
    pub tls: PathBuf,
    pub host: IpAddr,
    pub port: u16,
    /// The network namespace that the client must be in.
    pub namespace: Option<String>,
}

impl Access {
    /// The same certificates at another port.
    pub fn at_port(&self, port: u16) -> Self {
        Self { port, ..self.clone() }
    }

    pub async fn client(&self) -> etcd_client::Client {
        self.connect().await.unwrap()
    }

    /// A client whose requests take at most two seconds.
    pub async fn connect(&self) -> Result<etcd_client::Client, etcd_client::Error> {
        let file = |name: &str| fs::read(self.tls.join(name));
        let tls = etcd_client::TlsOptions::new()
            .ca_certificate(etcd_client::Certificate::from_pem(file("server-ca.crt")?))
            .identity(etcd_client::Identity::from_pem(file("client.crt")?, file("client.key")?));
        let timeout = Duration::from_secs(2);
        let options =
            etcd_client::ConnectOptions::new().with_tls(tls).with_timeout(timeout).with_connect_timeout(timeout);
        etcd_client::Client::connect([format!("https://{}", SocketAddr::new(self.host, self.port))], Some(options))
            .await
    }

    /// One exchange over a connection of its own, in the namespace of the client; `None` if it cannot connect.
    pub fn ask<T: Send>(&self, ask: impl AsyncFnOnce(&mut etcd_client::Client) -> Option<T> + Send) -> Option<T> {
        network::inside(self.namespace.as_deref(), || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { ask(&mut self.connect().await.ok()?).await })
        })
    }

    /// Writes the key.
    pub fn put(&self, key: &str) -> Option<()> {
        self.ask(async |client| client.put(key, "x", None).await.ok().map(|_| ()))
    }

    /// `HashKV` of all that is there.
    pub fn hash_kv(&self) -> Option<u32> {
        self.ask(async |client| Some(client.hash_kv(0).await.ok()?.hash()))
    }

    /// The names of the members that this etcd knows.
    pub fn members(&self) -> Option<Vec<String>> {
        let mut names = self.ask(async |client| {
            let list = client.member_list().await.ok()?;
            Some(list.members().iter().map(|member| member.name().to_owned()).collect::<Vec<_>>())
        })?;
        names.sort();
        Some(names)
    }
}
