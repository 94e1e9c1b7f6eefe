//! Ports for a server, claimed so that tests of several processes do not meet.

use std::fs::{self, File};
use std::net::TcpListener;

/// Five ports in a row that are free, kept from other tests for as long as this lives.
#[derive(Debug)]
pub struct Ports {
    pub base: u16,
    _claim: nix::fcntl::Flock<File>,
}

impl Ports {
    pub fn claim() -> Self {
        // Below the range that the kernel hands out automatically.
        const FIRST: u16 = 20_000;
        const BLOCKS: u16 = 1_200;
        let dir = std::env::temp_dir().join("quorate-test-ports");
        fs::create_dir_all(&dir).unwrap();
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
        for step in 0..BLOCKS {
            let base = FIRST + ((start + step) % BLOCKS) * 10;
            let file = File::options().create(true).append(true).open(dir.join(base.to_string())).unwrap();
            let Ok(claim) = nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusiveNonblock) else {
                continue;
            };
            if (0..5).all(|offset| TcpListener::bind(("0.0.0.0", base + offset)).is_ok()) {
                return Self { base, _claim: claim };
            }
        }
        panic!("no free ports");
    }

    pub fn client(&self) -> u16 {
        self.base
    }
    pub fn peer(&self) -> u16 {
        self.base + 1
    }
    pub fn etcd_metrics(&self) -> u16 {
        self.base + 2
    }
    pub fn metrics(&self) -> u16 {
        self.base + 3
    }
    pub fn supervisor(&self) -> u16 {
        self.base + 4
    }
}
