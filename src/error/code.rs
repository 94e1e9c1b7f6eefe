//! The stable code of every failure that a user can meet: one table, from which docs/errors.md and `quorate explain` are made.
//!
//! Messages may be reworded at any time; a code is never renamed and never means something else. Problems that a running server
//! reports in `quorate status` have codes of the same table.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::exit::Exit;

macro_rules! codes {
    ($($variant:ident $name:literal $exit:ident $cause:literal, $remedy:literal;)+) => {
        /// The stable code of a failure or of a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $(#[doc = $cause] $variant,)+
        }

        impl Code {
            /// Every code, in the order of docs/errors.md.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// As it is printed: lower case words joined by hyphens.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The exit code of a command that fails with it.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)+ }
            }

            /// What has happened, in a sentence or two.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self { $(Self::$variant => $cause,)+ }
            }

            /// What an operator does about it.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)+ }
            }
        }
    };
}

codes! {
    // Command line and configuration.
    Usage "usage" Usage
        "The command line cannot be parsed, or two of its options contradict each other. Nothing was done.",
        "Read the message and `--help` of the command, correct the command line, and run it again.";
    InvalidConfiguration "invalid-configuration" Usage
        "The configuration has one or more problems; all of them are listed with file and line. Nothing was started or changed.",
        "Correct each of them, then check with `quorate server --print-config`.";
    S3NotConfigured "s3-not-configured" Usage
        "A command is about object storage, and no bucket is configured.",
        "Set `etcd-s3-bucket` in the configuration, or give `--s3-bucket`.";
    FlagsRequireReset "flags-require-reset" Usage
        "A flag that belongs to `--cluster-reset` or `--undo-reset` was given without it.",
        "Add `--cluster-reset` or `--undo-reset`, or leave the flag out.";
    JoinNotSupported "join-not-supported" Usage
        "`server` names another server, this one has no data, and joining is not implemented in this version.",
        "Remove `server` from the configuration to begin a cluster of its own.";

    // Files and directories.
    ReadFailed "read-failed" Failed
        "A file cannot be read.",
        "Look at the cause that is printed. For an I/O error see `dmesg`.";
    WriteFailed "write-failed" Failed
        "A file or directory cannot be created, written, renamed, removed or synced.",
        "Look at the cause that is printed. For an I/O error see `dmesg`.";
    PermissionDenied "permission-denied" Failed
        "The operating system does not let this user read or write a file.",
        "Run quorate as the user that owns the data directory, usually root.";
    ReadOnlyFileSystem "read-only-file-system" Failed
        "A file has to be written, and its file system is mounted read-only; the kernel does that after errors of the disk.",
        "See `dmesg` for the reason, remount it writable, or choose another directory.";
    NoSpace "no-space" Failed
        "A file system is full, a quota is used up, or the free space is less than what the command needs.",
        "Free some space there (`df -h`, `du -xsh DIR/*`), or choose another directory, then run the command again.";
    OutputFailed "output-failed" Failed
        "The result cannot be written to standard output.",
        "See where standard output leads to: is that disk full?";
    UntrustedPath "untrusted-path" Refused
        "A directory or link on the way to the data belongs to, or can be changed by, another user. quorate does not follow it.",
        "See who made it (`ls -ld`), and correct owner and mode, or choose another directory.";
    WrongOwner "wrong-owner" Refused
        "A file of the data directory belongs to another user than the one etcd runs as.",
        "Set `etcd-user` to that user, or change the owner of the files as the message says.";
    NotTraversable "not-traversable" Usage
        "etcd is to run as a user who may not pass through a directory above the data.",
        "`chmod o+x` that directory, or choose another `data-dir`.";
    DanglingLink "dangling-link" Refused
        "A symbolic link leads to something that does not exist: perhaps a disk that is not mounted.",
        "Mount what it leads to; if there is no data there, remove the link.";
    NotADirectory "not-a-directory" Usage
        "Something that is not a directory is where a directory is needed.",
        "Move it away, or choose another directory.";
    UnexpectedFile "unexpected-file" Refused
        "A file in the data directory has another type or is larger than it can be.",
        "See what it is (`ls -ld`), and move it away.";
    TooManyEntries "too-many-entries" Refused
        "A directory of the data has more entries than quorate reads.",
        "See what is in it, and move away what does not belong there.";
    FileMissing "file-missing" Refused
        "A file or directory that has to be there is not there.",
        "See what is there, and bring the file back from a backup.";
    FileReplaced "file-replaced" Refused
        "A file was replaced by another program while quorate worked on it.",
        "Find out which program changes it (`fuser -v`), stop that, and try again.";
    MountPoint "mount-point" Refused
        "A directory that is to be removed is a mount point.",
        "Unmount it (`umount`), and try again.";
    DirectoryNotFound "directory-not-found" NotFound
        "The data directory, or the directory of snapshots, does not exist.",
        "Name the right one with `--data-dir` or `--dir`.";
    DirectoryNotEmpty "directory-not-empty" Refused
        "A data directory is to be built where there is one already.",
        "Choose another directory, or move that one away.";

    // The data directory and the start of the server.
    DataDirInUse "data-dir-in-use" InUse
        "Another quorate holds the lock of this data directory.",
        "Stop that one first (`systemctl stop quorate-server`), or use another `--data-dir`.";
    EtcdDataInUse "etcd-data-in-use" InUse
        "An etcd that quorate did not start runs on the data in this data directory.",
        "Stop that process first, or use another `--data-dir`.";
    OrphanNotStopping "orphan-not-stopping" InUse
        "An etcd that was left by a killed quorate does not end, even after SIGKILL: it waits for a disk.",
        "See `cat /proc/PID/status` and `dmesg`; start again when it is gone.";
    DataLost "data-lost" Refused
        "This server was a member of a cluster, and its etcd data is gone. A start would silently make an empty cluster.",
        "Mount the disk of the data, restore a snapshot, or begin an empty cluster with `--new-cluster`.";
    SnapshotsExist "snapshots-exist" Refused
        "There is no etcd data, but there are snapshots of this server. A start would silently make an empty cluster.",
        "Mount the disk of the data, restore a snapshot, or begin an empty cluster with `--new-cluster`.";
    DataIncomplete "data-incomplete" Refused
        "The etcd data directory holds a database without a write-ahead log that etcd could resume from.",
        "Restore the newest snapshot, or the database there with `--skip-hash-check`; `--new-cluster` sets the data aside.";
    DataUnreadable "data-unreadable" Failed
        "The etcd data directory cannot be read, so nothing can be decided about it. Nothing was changed.",
        "See `dmesg` for what the disk says, and `ls -ld` for the permissions.";
    MemberMismatch "member-mismatch" Refused
        "The etcd data is that of another member than the one this server was.",
        "Bring back this server's own `server/db/etcd`. Two servers with the data of one member would harm both.";
    WrongCluster "wrong-cluster" Refused
        "The etcd data is that of another cluster than the one this server belongs to.",
        "Bring back this server's own `server/db/etcd`; or, if the data is what you want, move `server/cluster.json` away.";
    ClusterRecordUnreadable "cluster-record-unreadable" Refused
        "`server/cluster.json`, which protects against an accidental new cluster, cannot be read.",
        "Bring it back from a backup; with whole etcd data in place it can also be moved away.";
    EtcdOlderThanData "etcd-older-than-data" Refused
        "This data was last run by a newer etcd, and an older one cannot read it safely.",
        "Install that etcd again, or name it with `--etcd-binary`.";
    EtcdTooNew "etcd-too-new" Refused
        "This data was last run by an etcd that is more than one minor older; etcd upgrades one minor at a time.",
        "Run the minor in between first, until it is ready.";
    ResetFlag "reset-flag" Refused
        "A reset or restore was done, and the server was not started since.",
        "Start the server without the flags; the mark disappears when etcd is ready.";
    ClockWrong "clock-wrong" Failed
        "The clock of this machine shows a time that cannot be right.",
        "Set it, for example with `timedatectl set-ntp true`.";
    PortInUse "port-in-use" Failed
        "Another process listens on a port that this server needs.",
        "Stop that process, or set another port.";
    PortInUseByQuorate "port-in-use-by-quorate" InUse
        "The port is used by the etcd of another quorate server on this machine.",
        "See `quorate status --data-dir DIR` of that server; for a second server set other ports.";
    ListenFailed "listen-failed" Failed
        "The server cannot listen on an address.",
        "Set another port or another `node-ip`.";
    SocketPathTaken "socket-path-taken" Refused
        "Something that is not a socket of this user is where the control socket has to be.",
        "See what it is (`ls -l`), and move it away.";
    OsError "os-error" Failed
        "The operating system refused a thread, a signal handler, random numbers or another basic service.",
        "See `dmesg`, and the limits of the service (`systemctl show quorate-server`).";
    InternalError "internal-error" Failed
        "A worker thread of quorate ended unexpectedly. This is a fault of quorate.",
        "Try again; report it together with the log.";
    TaskEnded "task-ended" Failed
        "A background task of the server ended unexpectedly; the server stopped etcd in order and ended. This is a fault of quorate.",
        "systemd starts the server again; report it together with the log.";
    Unknown "unknown" Failed
        "The server reports a code that this command does not know: they are of different versions.",
        "The message still says everything; see `quorate version` and `quorate status`.";
    Cancelled "cancelled" Failed
        "The command was cancelled: by a signal, by its client, or because the server stops.",
        "Run it again.";

    // etcd and its binary.
    EtcdNotFound "etcd-not-found" NotFound
        "There is no etcd (or etcdctl): not inside quorate, not beside it, not in PATH.",
        "Install one, or name it with `--etcd-binary`.";
    EtcdNotRunnable "etcd-not-runnable" Usage
        "The file that is named as etcd cannot be run, or is not an etcd.",
        "Name another one with `--etcd-binary`, or correct its permissions.";
    EtcdUnsupported "etcd-unsupported" Usage
        "The etcd has a version that quorate does not support.",
        "Name an etcd of a supported minor with `--etcd-binary`.";
    EtcdArgument "etcd-argument" Usage
        "This etcd does not accept an argument that is set in `etcd-arg`.",
        "Correct `etcd-arg`; `etcd --help` lists what this etcd accepts.";
    EtcdctlFailed "etcdctl-failed" Failed
        "etcdctl cannot be run.",
        "Look at the cause that is printed.";
    EtcdKeepsExiting "etcd-keeps-exiting" Failed
        "etcd ended several times right after its start. Its last lines are part of the message.",
        "Find the reason in those lines, correct it, and start again. quorate did not touch the data.";
    EtcdUnkillable "etcd-unkillable" Failed
        "etcd was killed and does not end: it waits for a disk that does not answer.",
        "See `dmesg` and `/proc/PID/stack`; a later start waits until it is gone.";
    EtcdRequestFailed "etcd-request-failed" Failed
        "etcd answers, but a request to it failed.",
        "See `quorate status`, and `journalctl -u quorate-server -e`.";
    EtcdUnreachable "etcd-unreachable" NotRunning
        "etcd does not answer, or is not ready for this request.",
        "See `quorate status`.";

    // Certificates and token.
    CaMissing "ca-missing" Failed
        "The CA of this server is gone while it is in use, or was never given to it.",
        "Bring the certificate and its key back from a backup.";
    CaForeign "ca-foreign" Refused
        "The directory of certificates holds the CA of another cluster than the one that is joined.",
        "If nothing of the old cluster is needed, move the directory of certificates away and start again.";
    CaKeyMissing "ca-key-missing" Failed
        "A CA certificate is there, but its key is not.",
        "Bring the key back from a backup.";
    CaInvalid "ca-invalid" Failed
        "A CA certificate or its key cannot be used.",
        "Bring both back from a backup.";
    CaExpired "ca-expired" Failed
        "A CA has expired.",
        "Move the directory of certificates away and start again; every client then needs the new CA.";
    CertificateFailed "certificate-failed" Failed
        "A certificate or token cannot be made.",
        "Look at the cause that is printed.";
    RestartRequired "restart-required" Failed
        "A key cannot be read any more, and making a new one needs a restart of the server.",
        "`systemctl restart quorate-server`";
    TokenMalformed "token-malformed" Usage
        "The token has neither the form `K10<hash>::server:<password>` nor that of a plain password.",
        "Copy the token again, from `server/token` of a server of the cluster.";
    WrongToken "wrong-token" Refused
        "The token is not the one of this cluster.",
        "Remove `token` and `token-file` from the configuration, or set the one in `server/token`.";
    ForeignToken "foreign-token" Refused
        "The token names the CA of another cluster, and this server has no cluster yet.",
        "To begin a new cluster, set the token to its password only: what follows `::server:`.";

    // Talking to the server.
    NotRunning "not-running" NotRunning
        "No quorate server runs on this data directory.",
        "Start it (`systemctl start quorate-server`), or name its `--data-dir`.";
    ControlDenied "control-denied" NotRunning
        "Only the owner of the control socket may use it.",
        "Run the command as root, or as the user that runs the server.";
    NoAnswer "no-answer" NotRunning
        "The server is there, but does not answer.",
        "See its log: `journalctl -u quorate-server -e`.";
    RequestRefused "request-refused" Failed
        "The server did not accept the request; its answer is part of the message.",
        "Are the command and the server of the same version? See `quorate version` and `quorate status`.";
    OutcomeUnknown "outcome-unknown" Failed
        "The connection to the server ended before it said how the request ended.",
        "Look at the state before you repeat the command: `quorate status`, `quorate etcd-snapshot ls`.";
    Stopping "stopping" NotRunning
        "The server is stopping, and does not begin or finish this.",
        "Try again when it runs.";
    Busy "busy" Busy
        "Another snapshot, defragmentation or restore drill is running.",
        "Try again, or add `--wait`.";

    // Snapshots.
    SnapshotNotFound "snapshot-not-found" NotFound
        "There is no snapshot of this name, or no file at this path.",
        "`quorate etcd-snapshot ls` shows all; anything with a `/` is a path.";
    SnapshotAmbiguous "snapshot-ambiguous" Usage
        "Two different snapshots have this name, one on this node and one in object storage.",
        "Name one of them: by its path, or by its `s3://` URL.";
    NoGoodSnapshot "no-good-snapshot" NotFound
        "The newest good snapshot was asked for, and there is none.",
        "`quorate etcd-snapshot ls` shows all; one can be named to use it nevertheless.";
    NoSnapshots "no-snapshots" NotFound
        "There is no snapshot in this directory.",
        "Save one (`quorate etcd-snapshot save`), or name the right directory with `--dir`.";
    SnapshotCorrupt "snapshot-corrupt" Failed
        "The snapshot is not what etcd wrote: a checksum or a structure in it is wrong.",
        "Do not restore it. Use another one, or another copy of it.";
    SnapshotUnhashed "snapshot-unhashed" Failed
        "The file has no SHA-256 at its end: it is a plain copy of a database, or cut off.",
        "If it is a copy of `member/snap/db`, add `--skip-hash-check`: everything else is still checked.";
    ArchiveInvalid "archive-invalid" Failed
        "The compressed snapshot cannot be unpacked, or is cut off.",
        "Use another one, or another copy of it.";
    SnapshotStreamFailed "snapshot-stream-failed" Failed
        "etcd stopped sending its snapshot, or sent one that is not whole. Nothing of it was kept.",
        "See `quorate status`, and try again.";
    SnapshotNotReadBack "snapshot-not-read-back" Failed
        "What was written to the disk is not what is read back. Nothing of it was kept.",
        "See `dmesg` for what the disk says, and try again.";
    SnapshotTimeout "snapshot-timeout" Failed
        "The snapshot took longer than `etcd-snapshot-timeout` and was cancelled; nothing of it is left.",
        "See `quorate status`; raise the limit if the database has grown.";
    SnapshotDirUnusable "snapshot-dir-unusable" Usage
        "Snapshots cannot be kept in this directory.",
        "Make the directory, or choose another `etcd-snapshot-dir`.";
    SnapshotDirExposed "snapshot-dir-exposed" Refused
        "Other users can write into the directory of snapshots, and could exchange what is restored later.",
        "Correct its owner and mode, or choose another `etcd-snapshot-dir`.";
    SnapshotLeftover "snapshot-leftover" Failed
        "The snapshot failed, and its unfinished file could not be removed.",
        "See `dmesg`, then remove the file that is named.";
    SnapshotHeld "snapshot-held" Refused
        "The snapshot is held, so it is not deleted.",
        "`quorate etcd-snapshot release NAME` if it may be deleted.";
    ManifestUnreadable "manifest-unreadable" Refused
        "The manifest of a snapshot cannot be read, so the snapshot may be held. It was not deleted.",
        "Look at it, in `.metadata` beside the snapshot; `--force` deletes both.";
    LastGoodSnapshot "last-good-snapshot" Refused
        "The snapshot is the last good one, so it is not deleted.",
        "Save another one first, or add `--force`.";
    InvalidSnapshotName "invalid-snapshot-name" Usage
        "The name cannot be the name of a snapshot.",
        "Choose another `--name`.";
    KeyNotFound "key-not-found" NotFound
        "The snapshot does not have this key (at this revision).",
        "`quorate etcd-snapshot ls NAME` shows its keys.";
    RevisionUnavailable "revision-unavailable" Failed
        "The revision is newer than the snapshot, or was compacted.",
        "Leave out `--rev`, or give one within the limits that the message names.";
    NotComparable "not-comparable" Failed
        "The snapshot cannot be compared with the live member.",
        "Verify it without `--against-live`.";
    LiveMemberDiffers "live-member-differs" Failed
        "The snapshot is whole, but the live member has other keys or values at its revision.",
        "If it is a snapshot of this cluster, the member or the snapshot is wrong: keep both, and compare the members.";
    DatabaseDamaged "database-damaged" Failed
        "etcd's database has pages that are not whole.",
        "Save a snapshot, which checks all of it, and see the log; restore the newest good snapshot.";
    DatabaseChanged "database-changed" Failed
        "etcd was restarted, or its database was replaced, while it was read; a defragmentation does that.",
        "Try again.";
    QuotaStillFull "quota-still-full" Failed
        "The database is still at its quota after it was compacted and defragmented; the NOSPACE alarm stays.",
        "Delete keys (`quorate space` shows which take the most) and run it again, or raise `etcd-quota-backend-bytes`.";

    // Reset and restore.
    NoEtcdData "no-etcd-data" NotFound
        "There is no etcd data to reset.",
        "Mount the disk of the data, or restore a snapshot.";
    NoEarlierData "no-earlier-data" NotFound
        "There is no data from before a reset to return to.",
        "`quorate etcd-snapshot ls` shows the snapshots that can be restored.";
    SnapshotNeedsOtherEtcd "snapshot-needs-other-etcd" Refused
        "The snapshot was written by an etcd that this one cannot follow.",
        "Restore it with the etcd that the message names, given with `--etcd-binary`.";
    RevisionOverflow "revision-overflow" Usage
        "The revision of the snapshot cannot be raised by so much.",
        "Give a smaller `--cluster-reset-bump-revision`.";
    SnapshotEmpty "snapshot-empty" Refused
        "The snapshot holds no keys: etcd would serve nothing after the restore.",
        "Restore another one, or add `--allow-empty`.";
    InvalidMembership "invalid-membership" Usage
        "The members that were given cannot be a cluster, or do not include the one that is asked for.",
        "Correct `--initial-cluster` and the options beside it.";
    JournalUnreadable "journal-unreadable" Refused
        "The journal of an interrupted reset or restore cannot be read.",
        "Look at `server/db/etcd` and the newest `etcd-old-…`, and follow the message.";
    OperationUndecided "operation-undecided" Refused
        "A restore over several servers has begun on this one and is not decided: either data could be the wrong ones.",
        "Finish or undo it on the server that coordinates it.";
    PathInTheWay "path-in-the-way" Refused
        "Something is where a reset has to put data, and was not there when it was interrupted.",
        "Move it away, and start again.";
    WalMissing "wal-missing" Refused
        "The member's data has no write-ahead log.",
        "Restore the newest snapshot, or what the database holds without its log (`--skip-hash-check`).";
    IsolatedEtcdFailed "isolated-etcd-failed" Failed
        "The etcd that quorate runs on the new data in isolation ended or did not become healthy.",
        "Its last lines are part of the message. Nothing was changed; restore another snapshot.";
    RestoreCheckFailed "restore-check-failed" Failed
        "etcd runs on the new data, but does not have what was built.",
        "Nothing was changed, or it was rolled back. Restore another snapshot, and report this.";
    ResetRolledBack "reset-rolled-back" Failed
        "A reset or restore failed after the data were exchanged, and was rolled back: everything is as it was before.",
        "Correct the cause, then run the same command again.";
    ResetNotRolledBack "reset-not-rolled-back" Failed
        "A reset or restore failed, and cannot be rolled back now.",
        "Correct the cause, then start the server without the flags: it finishes or rolls back from its journal.";
    ResetNotRecorded "reset-not-recorded" Failed
        "A reset or restore is done and its data is in place and good, but this could not be recorded.",
        "Correct the cause, then start the server without the flags: it finishes from its journal.";
    DrillFailed "drill-failed" Failed
        "A restore drill showed that a snapshot cannot be restored, or is not what was saved.",
        "Do not rely on this snapshot: save another one, and drill that (`--drill latest`).";

    // Object storage.
    S3Unreachable "s3-unreachable" Failed
        "The object store cannot be reached.",
        "Check `etcd-s3-endpoint` and the network, then `quorate etcd-snapshot s3-check`.";
    S3Timeout "s3-timeout" Failed
        "The object store did not answer in time.",
        "Check `etcd-s3-endpoint` and the network, then `quorate etcd-snapshot s3-check`.";
    S3Tls "s3-tls" Failed
        "The TLS connection to the object store failed: usually its certificate is not trusted.",
        "Name its CA with `etcd-s3-endpoint-ca`; for plain HTTP set `etcd-s3-insecure`.";
    S3Proxy "s3-proxy" Failed
        "The proxy does not let the request through.",
        "Check `etcd-s3-proxy`, HTTPS_PROXY and NO_PROXY.";
    S3NoCredentials "s3-no-credentials" Failed
        "There are no credentials for the object store.",
        "Set `etcd-s3-access-key` and `etcd-s3-secret-key`, or give this machine a role.";
    S3AccessDenied "s3-access-denied" Failed
        "The object store knows the credentials, and they do not have the permission.",
        "Give them the permissions that `quorate etcd-snapshot s3-check` prints.";
    S3UnknownAccessKey "s3-unknown-access-key" Failed
        "The object store does not know the access key.",
        "Check `etcd-s3-access-key`.";
    S3WrongSecretKey "s3-wrong-secret-key" Failed
        "The secret key does not belong to the access key.",
        "Check `etcd-s3-secret-key`, and that `etcd-s3-region` is that of the bucket.";
    S3CredentialsExpired "s3-credentials-expired" Failed
        "The credentials have expired.",
        "Get new ones; a role renews them by itself.";
    S3ClockSkewed "s3-clock-skewed" Failed
        "The clocks of this machine and of the object store are too far apart.",
        "Set this machine's clock (`timedatectl`).";
    S3BucketNotFound "s3-bucket-not-found" Failed
        "The bucket does not exist.",
        "Check `etcd-s3-bucket`; create the bucket first.";
    S3ObjectNotFound "s3-object-not-found" NotFound
        "The object does not exist.",
        "`quorate etcd-snapshot ls --s3` shows what is there.";
    S3WrongRegion "s3-wrong-region" Failed
        "The bucket is in another region.",
        "Set `etcd-s3-region`, and an `etcd-s3-endpoint` there.";
    S3ObjectLocked "s3-object-locked" Failed
        "The object is kept by an object lock.",
        "Wait until the lock has expired.";
    S3ObjectArchived "s3-object-archived" Failed
        "The object is in an archive storage class.",
        "Have the store bring it back first.";
    S3Throttled "s3-throttled" Failed
        "The object store is overloaded, or limits the rate of requests.",
        "Try again later.";
    S3ChecksumMismatch "s3-checksum-mismatch" Failed
        "What the object store holds or sent is not what was uploaded.",
        "Do not trust this copy; try again, and see `quorate etcd-snapshot s3-check`.";
    S3NameConflict "s3-name-conflict" Failed
        "Another snapshot has this name in the bucket already.",
        "`quorate etcd-snapshot ls --s3` shows it.";
    S3ObjectReplaced "s3-object-replaced" Failed
        "The object was replaced by another one in the meantime.",
        "`quorate etcd-snapshot ls --s3`, and name the one that is meant.";
    S3SourceChanged "s3-source-changed" Failed
        "The file to be uploaded is not what was verified.",
        "`quorate etcd-snapshot verify`, and save another one.";
    S3Unsupported "s3-unsupported" Failed
        "The object store does not support this request, or answers in a way that S3 does not.",
        "See what `quorate etcd-snapshot s3-check` says.";
    S3RequestFailed "s3-request-failed" Failed
        "A request to the object store failed for another reason, which is printed.",
        "See what `quorate etcd-snapshot s3-check` says.";
    UploadPending "upload-pending" Failed
        "The snapshot is whole and safe on this node, but could not be uploaded yet. The upload is retried until it succeeds.",
        "Correct the cause that is printed; the message names the command that cancels the upload.";
    UploadRefused "upload-refused" Failed
        "The snapshot is not uploaded, because it is not the good one that was saved, or its name is used in the bucket.",
        "`quorate etcd-snapshot verify`, and save another one.";
    UploadSourceMissing "upload-source-missing" Failed
        "The snapshot that was to be uploaded is not there, or its disk does not answer now.",
        "`quorate etcd-snapshot ls`; check that its disk is mounted.";
    UploadDisabled "upload-disabled" Failed
        "The snapshot is safe on this node, and was not uploaded: `etcd-s3` is switched off now.",
        "Switch `etcd-s3` on again, and it is uploaded.";

    // Problems of a running server, in `quorate status` and in its log.
    EtcdNotServing "etcd-not-serving" Failed
        "etcd does not run, does not answer, has no leader, or is a learner.",
        "The message says which; see `quorate status` and the log.";
    EtcdRestarting "etcd-restarting" Failed
        "etcd exited at least twice within ten minutes.",
        "Find the reason in its last lines: `quorate status -o json`, `journalctl -u quorate-server`.";
    DataMissing "data-missing" Refused
        "etcd's data directory was deleted, or its disk unmounted, while etcd runs. etcd ends within 30 seconds and is not started again.",
        "Mount the disk; or restore the snapshot `rescue-…` that quorate saved at once, or the newest one.";
    DatabaseMissing "database-missing" Failed
        "etcd's database file was deleted while etcd has it open.",
        "As for data-missing.";
    LogMissing "log-missing" Failed
        "etcd's write-ahead log was deleted while etcd has it open.",
        "As for data-missing.";
    DataMoved "data-moved" Failed
        "etcd's data directory was moved while etcd runs; the message says where it is.",
        "Move it back at once: nothing is lost then.";
    DatabaseMoved "database-moved" Failed
        "etcd's database file was moved while etcd has it open; the message says where it is.",
        "Move it back at once: nothing is lost then.";
    LogMoved "log-moved" Failed
        "etcd's write-ahead log was moved while etcd has it open; the message says where it is.",
        "Move it back at once: nothing is lost then.";
    DataReplaced "data-replaced" Failed
        "Another directory was put in the place of etcd's data directory.",
        "Find out who did that; restore the snapshot `rescue-…` if the data is lost.";
    DatabaseReplaced "database-replaced" Failed
        "Another file was put in the place of etcd's database.",
        "Find out who did that; restore the snapshot `rescue-…` if the data is lost.";
    LogReplaced "log-replaced" Failed
        "Other files were put in the place of etcd's write-ahead log.",
        "Find out who did that; restore the snapshot `rescue-…` if the data is lost.";
    DiskNotAnswering "disk-not-answering" Failed
        "The file system of the data has not answered for ten seconds.",
        "See `dmesg`; check the disk or the network storage.";
    DiskFull "disk-full" Failed
        "Less than 16 MiB are free under etcd's data.",
        "Free some space there.";
    DiskInodesFull "disk-inodes-full" Failed
        "Less than 16 inodes are free under etcd's data.",
        "Remove files there that nobody needs.";
    DiskReadOnly "disk-read-only" Failed
        "The file system of etcd's data cannot be written.",
        "See `dmesg` for the reason, and remount it writable.";
    DiskLow "disk-low" Failed
        "Less than 256 MiB are free under etcd's data.",
        "Free some space there.";
    DiskInodesLow "disk-inodes-low" Failed
        "Less than 1000 inodes are free under etcd's data.",
        "Remove files there that nobody needs.";
    SnapshotDiskFull "snapshot-disk-full" Failed
        "Less than 16 MiB are free under the snapshots.",
        "Free some space there: `quorate etcd-snapshot prune`.";
    SnapshotDiskInodesFull "snapshot-disk-inodes-full" Failed
        "Less than 16 inodes are free under the snapshots.",
        "Remove files there that nobody needs.";
    SnapshotDiskReadOnly "snapshot-disk-read-only" Failed
        "The file system of the snapshots cannot be written.",
        "See `dmesg` for the reason, and remount it writable.";
    SnapshotDiskLow "snapshot-disk-low" Failed
        "Less than 256 MiB are free under the snapshots.",
        "Free some space there: `quorate etcd-snapshot prune`.";
    SnapshotDiskInodesLow "snapshot-disk-inodes-low" Failed
        "Less than 1000 inodes are free under the snapshots.",
        "Remove files there that nobody needs.";
    AlarmNoSpace "alarm-nospace" Failed
        "A member has raised the alarm NOSPACE: the database reached its quota, and nothing can be written.",
        "`quorate space --free`; if that is not enough, delete keys or raise `etcd-quota-backend-bytes`.";
    AlarmCorrupt "alarm-corrupt" Failed
        "A member has raised the alarm CORRUPT: its data differs from that of the others.",
        "Compare the members (`etcdctl endpoint hashkv --cluster`), and restore the wrong one.";
    AlarmOther "alarm-other" Failed
        "A member has raised an alarm that this version of quorate does not know.",
        "`quorate etcdctl alarm list`, and the documentation of that etcd.";
    QuotaNear "quota-near" Failed
        "The database has reached 90 % of its quota.",
        "`quorate space` shows which keys take the most; compact, delete, or raise `etcd-quota-backend-bytes`.";
    SnapshotsFailing "snapshots-failing" Failed
        "The last three snapshots failed.",
        "The message has the reason; `quorate etcd-snapshot save` tries it by hand.";
    SnapshotsUnlisted "snapshots-unlisted" Failed
        "The directory of snapshots cannot be listed; what is shown of the last snapshots is older.",
        "See `dmesg`, and the permissions of the directory.";
}

impl Code {
    /// The code of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A code that this version does not know, from a newer server, is [`Code::Unknown`]: its message still says everything.
impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self::named(&name).unwrap_or(Self::Unknown))
    }
}
