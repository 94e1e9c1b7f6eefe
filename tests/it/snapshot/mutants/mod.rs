//! `make proof`: databases of real etcds with one thing changed and the right SHA-256 again. What quorate calls good, etcd and its own
//! `snapshot restore` take, and serve as quorate says; nothing that one of them refuses is called good.
//!
//! `QUORATE_PROOF_MUTANTS` says how many (2000), `QUORATE_PROOF_SEED` which ones (1). Those that fail are kept in `target/mutants`.

mod base;
mod change;
mod etcd;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use quorate::boltdb::membership::Membership;
use quorate::error::Diagnostic as _;
use quorate::job::JobControl;
use quorate::plan::restore::RestoreRefusal;
use quorate::recovery::build::{self, BuildError, DataDirSpec};
use quorate::snapshot::file;
use quorate::snapshot::inspect::Inspection;
use quorate::snapshot::verify::{VerifyOptions, verify};
use quorate::version::Version;

use self::base::Base;
use self::change::{KINDS, Kind, Random};
use self::etcd::Answer;
use crate::kit::{Etcd, Ports};

/// Mutants that are tried at a time.
const WORKERS: usize = 3;

/// The result of a mutant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// quorate refuses it, and so does etcd or its restore.
    RefusedByBoth,
    /// quorate refuses it, and etcd runs on it: it serves something that was not verified.
    RefusedByQuorate,
    /// It is good, and etcd serves what quorate says.
    Agrees,
    /// It is good, and etcd or its restore refuses it: must never be.
    Refused,
    /// It is good, and etcd serves something else: must never be.
    Differs,
}

struct Attempt {
    outcome: Outcome,
    why: String,
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

#[test]
#[ignore = "takes minutes; make proof runs it"]
fn mutants_that_no_etcd_runs_on_are_never_good() {
    let count = usize::try_from(number("QUORATE_PROOF_MUTANTS", 2000)).unwrap();
    let seed = number("QUORATE_PROOF_SEED", 1);
    let bases: Vec<Base> =
        ["3.4", "3.5", "3.6", "3.7"].into_iter().filter_map(Etcd::find).flat_map(|etcd| base::make(&etcd)).collect();
    for base in &bases {
        let tried = try_one(base, &base.bytes, &base.ports);
        assert_eq!(tried.outcome, Outcome::Agrees, "{}, not changed: {}", base.name, tried.why);
    }
    let begun = Instant::now();
    let next = AtomicUsize::new(0);
    let table = Mutex::new(BTreeMap::<(&str, Outcome), usize>::new());
    let wrong = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                let ports = Ports::claim();
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    let (base, kind, mutant) = mutant(&bases, index, seed);
                    let tried = try_one(base, &mutant, &ports);
                    *table.lock().unwrap().entry((kind.name, tried.outcome)).or_default() += 1;
                    if matches!(tried.outcome, Outcome::Refused | Outcome::Differs) {
                        let path = keep(index, base, &mutant);
                        let report = format!(
                            "{} of {}: {:?}: {} ({})",
                            kind.name,
                            base.name,
                            tried.outcome,
                            tried.why,
                            path.display()
                        );
                        println!("{report}");
                        wrong.lock().unwrap().push(report);
                    }
                }
            });
        }
    });
    report(&table.into_inner().unwrap(), count, begun);
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {count} mutants:\n{}", wrong.len(), wrong.join("\n"));
}

/// All kinds of changes to all databases in turn; what is changed is left to chance that can be repeated.
fn mutant(bases: &[Base], index: usize, seed: u64) -> (&Base, &'static Kind, Vec<u8>) {
    let kind = &KINDS[index % KINDS.len()];
    let base = &bases[(index / KINDS.len() + index) % bases.len()];
    let mut random = Random::new(seed ^ (index as u64) << 20);
    (base, kind, change::sealed(kind, base.database(), &mut random))
}

fn keep(index: usize, base: &Base, mutant: &[u8]) -> PathBuf {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/mutants");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(format!("{index:04}-{}", base.name));
    fs::write(&path, mutant).unwrap();
    path
}

fn try_one(base: &Base, bytes: &[u8], ports: &Ports) -> Attempt {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("mutant");
    fs::write(&path, bytes).unwrap();
    let theirs = dir.path().join("theirs");
    match verify(&path, VerifyOptions::default(), &mut |_, _| ControlFlow::Continue(())) {
        Err(error) => {
            let restored = etcd::restore(&base.etcd, &path, &theirs, ports);
            let ran = restored.and_then(|()| etcd::run(&base.etcd, &theirs, ports).map(|_| ()));
            match ran {
                Err(why) => Attempt { outcome: Outcome::RefusedByBoth, why },
                Ok(()) => Attempt { outcome: Outcome::RefusedByQuorate, why: error.to_string() },
            }
        }
        Ok(verified) => try_good(base, &path, dir.path(), &verified.inspection, ports),
    }
}

fn try_good(base: &Base, path: &Path, dir: &Path, inspection: &Inspection, ports: &Ports) -> Attempt {
    let refused = |why: String| Attempt { outcome: Outcome::Refused, why };
    let (etcd, ours) = match restored_by_quorate(&base.etcd, path, &dir.join("ours"), ports) {
        Ok(ours) => (base.etcd.clone(), ours),
        // What it says of its version was changed: then it is restored with that one.
        Err(BuildError::Refused(RestoreRefusal::NeedsOtherEtcd { written, .. })) => {
            let minor = ["3.4", "3.5", "3.6", "3.7"].into_iter().find(|minor| *minor == written);
            let Some(etcd) = minor.and_then(Etcd::find) else { return refused(format!("there is no etcd {written}")) };
            match restored_by_quorate(&etcd, path, &dir.join("newer"), ports) {
                Ok(ours) => (etcd, ours),
                Err(error) => return refused(error.to_string()),
            }
        }
        Err(error) => return refused(format!("quorate's own restore: {error} {:?}", error.next_step())),
    };
    if let Err(why) = etcd::restore(&etcd, path, &dir.join("theirs"), ports) {
        return refused(why);
    }
    let expected = Answer {
        revision: inspection.revision,
        keys: i64::try_from(inspection.keys).unwrap(),
        hash_kv: inspection.hash_kv,
        compact_revision: inspection.compact_revision.unwrap_or(-1),
    };
    match etcd::run(&etcd, &ours, ports) {
        Err(why) => refused(why),
        Ok(answer) if answer == expected => Attempt { outcome: Outcome::Agrees, why: String::new() },
        Ok(answer) => Attempt { outcome: Outcome::Differs, why: format!("quorate says {expected:?}, etcd {answer:?}") },
    }
}

fn restored_by_quorate(etcd: &Etcd, path: &Path, dir: &Path, ports: &Ports) -> Result<PathBuf, BuildError> {
    let target: Version = etcd.version().parse().unwrap();
    let members = [("m".to_owned(), vec![format!("http://127.0.0.1:{}", ports.peer())])];
    let membership = Membership::new(&members, "proof").unwrap();
    let blueprint = DataDirSpec { name: "m".into(), membership, target, raise: 0, allow_empty: true };
    build::build(&file::open(path).unwrap(), dir, &blueprint, &JobControl::default(), &mut |_, _| {})?;
    Ok(dir.to_path_buf())
}

fn report(table: &BTreeMap<(&str, Outcome), usize>, count: usize, begun: Instant) {
    use Outcome::{Agrees, Differs, Refused, RefusedByBoth, RefusedByQuorate};
    let outcomes = [RefusedByBoth, RefusedByQuorate, Agrees, Refused, Differs];
    println!("\n{count} mutants in {:.0} s", begun.elapsed().as_secs_f64());
    println!("{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "refused", "refused", "good", "GOOD,", "GOOD,");
    println!(
        "{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "what was changed", "by both", "by us", "agrees", "REFUSED", "DIFFERS"
    );
    let of = |name: &str, outcome| table.get(&(name, outcome)).copied().unwrap_or_default();
    for kind in &KINDS {
        let counts = outcomes.map(|outcome| of(kind.name, outcome));
        println!(
            "{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}",
            kind.name, counts[0], counts[1], counts[2], counts[3], counts[4]
        );
    }
    let all = outcomes
        .map(|outcome| table.iter().filter(|((_, of), _)| *of == outcome).map(|(_, count)| count).sum::<usize>());
    println!("{:<34} {:>8} {:>8} {:>8} {:>8} {:>8}", "all", all[0], all[1], all[2], all[3], all[4]);
}
