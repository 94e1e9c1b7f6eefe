//! Commands that messages tell an operator to type: they must work as they are printed.

use std::path::Path;

use crate::config::options::DEFAULT_DATA_DIR;
use crate::shell::quoted;

/// `quorate VERB` for the server on this data directory.
#[must_use]
pub fn quorate(data_dir: &Path, verb: &str) -> String {
    if data_dir == Path::new(DEFAULT_DATA_DIR) {
        return format!("quorate {verb}");
    }
    format!("quorate {verb} --data-dir {}", shell_word(data_dir))
}

/// A path as one word of a shell's command line.
#[must_use]
pub fn shell_word(path: &Path) -> String {
    quoted(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_name_the_data_directory_where_it_is_not_the_default() {
        assert_eq!(quorate(Path::new("/var/lib/quorate"), "space"), "quorate space");
        assert_eq!(quorate(Path::new("/srv/a b's"), "space"), r"quorate space --data-dir '/srv/a b'\''s'");
    }
}
