//! A client that writes all the time, and the ledger of what was acknowledged to it.
//!
//! Each write has its own key, which is never reused, and a value derived from the seed and the number of the write. A write whose
//! response was lost can therefore be repeated, a late one changes nothing, and the ledger is a count: whatever faults a test injects,
//! writes 0 to `acknowledged` (exclusive) must be in etcd, each with its value.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Access, eventually, network};

/// Between attempts and between writes, so that etcd is busy but not overloaded.
const PAUSE: Duration = Duration::from_millis(2);

/// Writes until it is stopped.
pub struct Writer {
    seed: u64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    acknowledged: AtomicU64,
    is_over: AtomicBool,
    gaps: Mutex<Gaps>,
}

struct Gaps {
    /// The last acknowledgement; the start, before the first one.
    last: Instant,
    longest: Duration,
}

/// What was acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct Ledger {
    pub seed: u64,
    /// How many writes, counted from number 0.
    pub acknowledged: u64,
    /// The longest time between two acknowledgements: how long clients were without service.
    pub longest_gap: Duration,
}

impl Writer {
    /// Writes through these etcds: one at a time, and the next one when it fails.
    pub fn start(accesses: Vec<Access>, seed: u64) -> Self {
        let gaps = Mutex::new(Gaps { last: Instant::now(), longest: Duration::ZERO });
        let shared = Arc::new(Shared { acknowledged: AtomicU64::new(0), is_over: AtomicBool::new(false), gaps });
        let for_thread = Arc::clone(&shared);
        let write = move || {
            for (attempt, access) in accesses.iter().cycle().enumerate() {
                if for_thread.is_over.load(Ordering::Relaxed) {
                    return;
                }
                if attempt > 0 {
                    std::thread::sleep(PAUSE);
                }
                network::inside(access.namespace.as_deref(), || write_through(access, seed, &for_thread));
            }
        };
        let thread = Some(std::thread::spawn(write));
        Self { seed, shared, thread }
    }

    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits for `count` more acknowledgements.
    #[track_caller]
    pub fn wait_for_more(&self, count: u64) {
        let enough = self.acknowledged() + count;
        eventually(&format!("{count} more writes"), || (self.acknowledged() >= enough).then_some(()));
    }

    /// Ends after the attempt under way.
    pub fn stop(mut self) -> Ledger {
        self.end();
        Ledger {
            seed: self.seed,
            acknowledged: self.acknowledged(),
            longest_gap: self.shared.gaps.lock().unwrap().longest,
        }
    }

    fn end(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the writer panicked");
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        let mut gaps = self.gaps.lock().unwrap();
        gaps.longest = gaps.longest.max(gaps.last.elapsed());
        gaps.last = Instant::now();
    }
}

/// Writes over one connection until a write fails or it is over.
fn write_through(access: &Access, seed: u64, shared: &Shared) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let Ok(mut client) = access.connect().await else { return };
        while !shared.is_over.load(Ordering::Relaxed) {
            let number = shared.acknowledged.load(Ordering::Relaxed);
            let (key, value) = write(seed, number);
            if client.put(key, value, None).await.is_err() {
                return;
            }
            shared.acknowledge();
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// Key and value of a write.
fn write(seed: u64, number: u64) -> (String, Vec<u8>) {
    let key = format!("{}{number:08}", prefix(seed));
    let random = mix(seed ^ mix(number));
    let length = usize::try_from(16 + random % 1000).unwrap();
    (key, random.to_le_bytes().into_iter().cycle().take(length).collect())
}

fn prefix(seed: u64) -> String {
    format!("ledger/{seed:016x}/")
}

/// `SplitMix64`.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

impl Ledger {
    /// Asserts that every acknowledged write is there with its value, and nothing that was never written. The write that was under
    /// way at the end may be there or not.
    #[track_caller]
    pub fn verify(&self, access: &Access) {
        let found = eventually("an etcd that lists the ledger", || self.read(access));
        let expected = (0..self.acknowledged).map(|number| write(self.seed, number));
        let lost: Vec<String> =
            expected.filter(|(key, value)| found.get(key) != Some(value)).map(|(key, _)| key).collect();
        let Self { seed, acknowledged, .. } = self;
        assert!(
            lost.is_empty(),
            "seed {seed}: of {acknowledged} acknowledged writes {} are lost: {lost:?}",
            lost.len()
        );
        let (next, value) = write(*seed, *acknowledged);
        let surplus: Vec<_> = found.range(next.clone()..).filter(|entry| *entry != (&next, &value)).collect();
        assert!(surplus.is_empty(), "seed {seed}: never written after {acknowledged}: {surplus:?}");
    }

    fn read(&self, access: &Access) -> Option<std::collections::BTreeMap<String, Vec<u8>>> {
        let prefix = prefix(self.seed);
        access.ask(async |client| {
            let mut all = std::collections::BTreeMap::new();
            let mut from = prefix.clone();
            // In pages, each within the limit of a message.
            loop {
                let end = format!("{}0", prefix.trim_end_matches('/'));
                let options = etcd_client::GetOptions::new().with_range(end).with_limit(500);
                let page = client.get(from.clone(), Some(options)).await.ok()?;
                for kv in page.kvs() {
                    all.insert(kv.key_str().ok()?.to_owned(), kv.value().to_vec());
                }
                let Some(last) = page.kvs().last().filter(|_| page.more()) else { return Some(all) };
                from = format!("{}\0", last.key_str().ok()?);
            }
        })
    }
}
