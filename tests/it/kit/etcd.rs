//! The real etcds that tests run, of each supported minor version.

use std::path::PathBuf;
use std::process::Command;

use super::{Timed, skip_without, target};

/// A real etcd of some minor version.
#[derive(Clone, Debug)]
pub struct Etcd {
    pub minor: &'static str,
    pub dir: PathBuf,
}

impl Etcd {
    /// The etcd of this minor that `make test` has put under `target/etcd`; `None`, and said, if it is not there.
    pub fn find(minor: &'static str) -> Option<Self> {
        let dir = target().join("etcd").join(minor);
        if dir.join("etcd").exists() && dir.join("etcdctl").exists() {
            return Some(Self { minor, dir });
        }
        skip_without("etcd", &format!("etcd {minor} is not in target/etcd (make matrix fetches it)"));
        None
    }

    /// The one that tests use which do not care.
    pub fn usual() -> Self {
        ["3.5", "3.4", "3.6", "3.7"]
            .into_iter()
            .find_map(Self::find)
            .expect("no etcd at all in target/etcd: run `make matrix`")
    }

    pub fn binary(&self) -> PathBuf {
        self.dir.join("etcd")
    }

    pub fn version(&self) -> String {
        let output = Command::new(self.binary()).arg("--version").output().unwrap();
        String::from_utf8_lossy(&output.stdout).lines().next().unwrap().replace("etcd Version: ", "")
    }
}

/// Makes a test for each supported minor from one function.
#[macro_export]
macro_rules! matrix {
    ($($name:ident),+ $(,)?) => {$(
        mod $name {
            #[test]
            fn v3_4() { $crate::kit::with_etcd("3.4", super::cases::$name); }
            #[test]
            fn v3_5() { $crate::kit::with_etcd("3.5", super::cases::$name); }
            #[test]
            fn v3_6() { $crate::kit::with_etcd("3.6", super::cases::$name); }
            #[test]
            fn v3_7() { $crate::kit::with_etcd("3.7", super::cases::$name); }
        }
    )+};
}

pub fn with_etcd(minor: &'static str, case: fn(&Etcd)) {
    let _timed = Timed::start();
    if let Some(etcd) = Etcd::find(minor) {
        case(&etcd);
    }
}
