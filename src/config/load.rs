//! Reads all sources, and reports everything that is wrong with them at once.

use crate::config::errors::{self, ConfigErrors};
use crate::config::layers::{self, Resolved};
use crate::config::model::Config;
use crate::config::options;
use crate::config::problem::{ConfigProblem, OptionOrigin};
use crate::config::raw::RawOptions;
use crate::config::reader::Reader;
use crate::config::{build, exposed, files, recheck, time_zone};
use crate::environment;
use crate::host::HostFacts;

/// The result of reading the configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The typed values, or every problem.
    pub config: Result<Config, ConfigErrors>,
    /// The typed values in spite of problems: enough to find a server, not to start one.
    pub tentative: Option<Config>,
    /// Each option's text and origin, even if others have problems.
    pub resolved: Resolved,
    pub warnings: Vec<ConfigProblem>,
}

/// Reads the configuration of a server: `given` is the command line and the environment, which name the files.
#[must_use]
pub fn load(given: &RawOptions, host: &HostFacts) -> Loaded {
    load_for(given, host, Reader::Server)
}

/// The same for any other command.
#[must_use]
pub fn load_for_command(given: &RawOptions, host: &HostFacts) -> Loaded {
    load_for(given, host, Reader::Command)
}

fn load_for(given: &RawOptions, host: &HostFacts, reader: Reader) -> Loaded {
    let mut problems = given.problems.clone();
    if let (Reader::Server, Some(filter)) = (reader, &given.log_filter)
        && let Err(error) = filter.parse::<tracing_subscriber::filter::Targets>()
    {
        problems.push(errors::log_filter_problem(filter, &error));
    }
    let mut files = files::read_files(given, &mut problems);
    if let Some(dir) = &host.rke1_snapshots {
        files.keep_snapshots_in(dir);
    }
    let resolved = layers::resolve(given, &files, &mut problems);
    let mut built = build::build(&resolved, host, reader, &mut problems);
    if let Some(config) = &mut built {
        config.invocation = recheck::invocation(given);
    }
    let (mistakes, mut warnings): (Vec<ConfigProblem>, Vec<ConfigProblem>) =
        layers::unknown_variables(environment::all().keys()).into_iter().partition(|problem| {
            built.as_ref().is_some_and(|config| config.cluster_reset) && is_about_a_reset(problem)
        });
    problems.extend(mistakes);
    warnings.extend_from_slice(files.notes());
    warnings.extend(resolved.rke1_retention_note.clone());
    warnings.extend(exposed::warnings(&resolved));
    warnings.extend(time_zone::problem(environment::text("TZ")));
    if built.as_ref().is_some_and(|config| config.new_cluster)
        && matches!(resolved.origin(&options::NEW_CLUSTER), OptionOrigin::File { .. } | OptionOrigin::Environment(_))
    {
        warnings.push(ConfigProblem {
            origin: resolved.origin(&options::NEW_CLUSTER),
            message:
                "new-cluster is set permanently, so a lost data directory would silently become an empty cluster; use it on the command line only, once, when it is needed"
                    .into(),
        });
    }
    problems.sort_by_key(|problem| problem.origin.sort_key());
    problems.dedup();
    let config = match &built {
        Some(config) if problems.is_empty() => Ok(config.clone()),
        _ => Err(ConfigErrors { problems, check: recheck::command(given) }),
    };
    Loaded { config, tentative: built, resolved, warnings }
}

/// A misspelt variable may have named the snapshot to restore.
fn is_about_a_reset(problem: &ConfigProblem) -> bool {
    matches!(&problem.origin, OptionOrigin::Environment(name) if name.starts_with("QUORATE_CLUSTER_RESET"))
}
