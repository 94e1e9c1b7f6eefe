//! The stable codes of all failures that a user can meet: one table, from which docs/errors.md and `quorate explain`
//! are generated.
//!
//! Messages may be reworded at any time; a code is never renamed and never means something else. Problems that a
//! running server reports in `quorate status` have codes of the same table.

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
        "A command needs object storage, but no bucket is configured.",
        "Set `etcd-s3-bucket` in the configuration, or use `--s3-bucket`.";
    FlagsRequireReset "flags-require-reset" Usage
        "A flag that belongs to `--cluster-reset` or `--undo-reset` was given without it.",
        "Add `--cluster-reset` or `--undo-reset`, or omit the flag.";
    JoinNotSupported "join-not-supported" Usage
        "`server` names another server, this one has no data, and joining is not implemented in this version.",
        "Remove `server` from the configuration to begin a new cluster.";

    // Files and directories.
    ReadFailed "read-failed" Failed
        "A file cannot be read.",
        "See the printed cause. For an I/O error check `dmesg`.";
    WriteFailed "write-failed" Failed
        "A file or directory cannot be created, written, renamed, removed or synced.",
        "See the printed cause. For an I/O error check `dmesg`.";
    PermissionDenied "permission-denied" Failed
        "This user may not read or write a file.",
        "Run quorate as the user that owns the data directory, usually root.";
    ReadOnlyFileSystem "read-only-file-system" Failed
        "A file cannot be written because its file system is mounted read-only; the kernel remounts it so after disk errors.",
        "See `dmesg` for the reason, remount it writable, or choose another directory.";
    NoSpace "no-space" Failed
        "A file system is full, a quota is used up, or the free space is less than what the command needs.",
        "Free some space there (`df -h`, `du -xsh DIR/*`), or choose another directory, then run the command again.";
    OutputFailed "output-failed" Failed
        "The result cannot be written to standard output.",
        "Check where standard output is redirected to: is that disk full?";
    UntrustedPath "untrusted-path" Refused
        "A directory or link in the path of the data belongs to another user, or can be changed by one. quorate does not follow it.",
        "Check who created it (`ls -ld`), and correct owner and mode, or choose another directory.";
    WrongOwner "wrong-owner" Refused
        "A file of the data directory does not belong to the user that etcd runs as.",
        "Set `etcd-user` to that user, or change the owner of the files as the message says.";
    NotTraversable "not-traversable" Usage
        "etcd's user may not traverse a directory above the data.",
        "`chmod o+x` that directory, or choose another `data-dir`.";
    DanglingLink "dangling-link" Refused
        "The target of a symbolic link does not exist: perhaps a disk is not mounted.",
        "Mount its target; if there is no data there, remove the link.";
    NotADirectory "not-a-directory" Usage
        "A file is in the place of a directory.",
        "Move it away, or choose another directory.";
    UnexpectedFile "unexpected-file" Refused
        "A file in the data directory has another type or is larger than it can be.",
        "Check what it is (`ls -ld`), and move it away.";
    TooManyEntries "too-many-entries" Refused
        "A directory of the data has more entries than quorate reads.",
        "Check its contents, and move away what does not belong there.";
    FileMissing "file-missing" Refused
        "A required file or directory does not exist.",
        "Check the directory, and restore the file from a backup.";
    FileReplaced "file-replaced" Refused
        "A file was replaced by another program while quorate worked on it.",
        "Find out which program changes it (`fuser -v`), stop that, and try again.";
    MountPoint "mount-point" Refused
        "A directory to remove is a mount point.",
        "Unmount it (`umount`), and try again.";
    DirectoryNotFound "directory-not-found" NotFound
        "The data directory, or the directory of snapshots, does not exist.",
        "Set the right one with `--data-dir` or `--dir`.";
    DirectoryNotEmpty "directory-not-empty" Refused
        "The output directory of a new data directory is not empty.",
        "Choose another directory, or move that one away.";

    // The data directory and the start of the server.
    DataDirInUse "data-dir-in-use" InUse
        "Another quorate holds the lock of this data directory.",
        "Stop that one first (`systemctl stop quorate-server`), or use another `--data-dir`.";
    EtcdDataInUse "etcd-data-in-use" InUse
        "An etcd that quorate did not start runs on the data in this data directory.",
        "Stop that process first, or use another `--data-dir`.";
    OrphanNotStopping "orphan-not-stopping" InUse
        "An etcd that a killed quorate left behind does not exit, even after SIGKILL: it waits for a disk.",
        "See `cat /proc/PID/status` and `dmesg`; start again when it is gone.";
    DataLost "data-lost" Refused
        "This server was a member of a cluster, and its etcd data is gone. A start would silently create an empty cluster.",
        "Mount the disk of the data, restore a snapshot, or begin an empty cluster with `--new-cluster`.";
    SnapshotsExist "snapshots-exist" Refused
        "There is no etcd data, but there are snapshots of this server. A start would silently create an empty cluster.",
        "Mount the disk of the data, restore a snapshot, or begin an empty cluster with `--new-cluster`.";
    DataIncomplete "data-incomplete" Refused
        "The etcd data directory holds a database without a write-ahead log that etcd could resume from.",
        "Restore the newest snapshot, or the database there with `--skip-hash-check`; `--new-cluster` moves the data to `etcd-old-…`.";
    DataUnreadable "data-unreadable" Failed
        "The etcd data directory cannot be read, so its state is unknown. Nothing was changed.",
        "Check `dmesg` for disk errors, and the permissions with `ls -ld`.";
    MemberMismatch "member-mismatch" Refused
        "The etcd data is that of another member than the one this server was.",
        "Restore this server's own `server/db/etcd`. Two servers with the data of one member would harm both.";
    WrongCluster "wrong-cluster" Refused
        "The etcd data is that of another cluster than the one this server belongs to.",
        "Restore this server's own `server/db/etcd`; or, if this data is intended, move `server/cluster.json` away.";
    ClusterRecordUnreadable "cluster-record-unreadable" Refused
        "`server/cluster.json`, which protects against an accidental new cluster, cannot be read.",
        "Restore it from a backup; if the etcd data is intact, it can also be moved away.";
    EtcdOlderThanData "etcd-older-than-data" Refused
        "This data was last run by a newer etcd, and an older one cannot read it safely.",
        "Install that etcd again, or set `--etcd-binary`.";
    EtcdTooNew "etcd-too-new" Refused
        "This data was last run by an etcd that is more than one minor older; etcd upgrades one minor at a time.",
        "Run the minor in between first, until it is ready.";
    ResetFlag "reset-flag" Refused
        "A reset or restore was done, and the server was not started since.",
        "Start the server without the flags; the flag is removed when etcd is ready.";
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
        "A file that is not a socket of this user is in the place of the control socket.",
        "See what it is (`ls -l`), and move it away.";
    OsError "os-error" Failed
        "A basic service of the operating system failed, such as threads, signals or random numbers.",
        "Check `dmesg`, and the limits of the service (`systemctl show quorate-server`).";
    InternalError "internal-error" Failed
        "A worker thread of quorate ended unexpectedly. This is a bug of quorate.",
        "Try again; report it together with the log.";
    TaskEnded "task-ended" Failed
        "A background task of the server ended unexpectedly; the server stopped etcd in order and ended. This is a bug of quorate.",
        "systemd starts the server again; report it together with the log.";
    Unknown "unknown" Failed
        "The server reports a code that this command does not know: they are of different versions.",
        "The message still says everything; see `quorate version` and `quorate status`.";
    Cancelled "cancelled" Failed
        "The command was cancelled: by a signal, by its client, or because the server stops.",
        "Run it again.";

    // etcd and its binary.
    EtcdNotFound "etcd-not-found" NotFound
        "There is no etcd (or etcdctl) inside quorate, next to it, or in PATH.",
        "Install one, or set `--etcd-binary`.";
    EtcdNotRunnable "etcd-not-runnable" Usage
        "The configured etcd cannot be run, or is not an etcd.",
        "Set another one with `--etcd-binary`, or correct its permissions.";
    EtcdUnsupported "etcd-unsupported" Usage
        "The etcd has a version that quorate does not support.",
        "Set an etcd of a supported minor with `--etcd-binary`.";
    EtcdArgument "etcd-argument" Usage
        "This etcd does not accept an argument that is set in `etcd-arg`.",
        "Correct `etcd-arg`; `etcd --help` lists what this etcd accepts.";
    EtcdctlFailed "etcdctl-failed" Failed
        "etcdctl cannot be run.",
        "See the printed cause.";
    EtcdKeepsExiting "etcd-keeps-exiting" Failed
        "etcd ended several times right after its start. Its last lines are part of the message.",
        "Find the reason in those lines, correct it, and start again. quorate did not touch the data.";
    EtcdUnkillable "etcd-unkillable" Failed
        "etcd was killed but does not exit: it waits for a disk that does not respond.",
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
        "A CA certificate exists, but its key does not.",
        "Restore the key from a backup.";
    CaInvalid "ca-invalid" Failed
        "A CA certificate or its key cannot be used.",
        "Restore both from a backup.";
    CaExpired "ca-expired" Failed
        "A CA has expired.",
        "Move the directory of certificates away and start again; every client then needs the new CA.";
    CertificateFailed "certificate-failed" Failed
        "A certificate or token cannot be created.",
        "See the printed cause.";
    RestartRequired "restart-required" Failed
        "A key cannot be read any more, and a new one requires a restart of the server.",
        "`systemctl restart quorate-server`";
    TokenMalformed "token-malformed" Usage
        "The token has neither the form `K10<hash>::server:<password>` nor that of a plain password.",
        "Copy the token again, from `server/token` of a server of the cluster.";
    WrongToken "wrong-token" Refused
        "The token is not the one of this cluster.",
        "Remove `token` and `token-file` from the configuration, or use the one in `server/token`.";
    ForeignToken "foreign-token" Refused
        "The token names the CA of another cluster, and this server has no cluster yet.",
        "To begin a new cluster, set the token to its password only, which follows `::server:`.";

    // Talking to the server.
    NotRunning "not-running" NotRunning
        "No quorate server runs on this data directory.",
        "Start it (`systemctl start quorate-server`), or set its `--data-dir`.";
    ControlDenied "control-denied" NotRunning
        "Only the owner of the control socket may use it.",
        "Run the command as root, or as the user that runs the server.";
    NoAnswer "no-answer" NotRunning
        "The server is running, but does not answer.",
        "See its log: `journalctl -u quorate-server -e`.";
    RequestRefused "request-refused" Failed
        "The server did not accept the request; its answer is part of the message.",
        "Are the command and the server of the same version? See `quorate version` and `quorate status`.";
    OutcomeUnknown "outcome-unknown" Failed
        "The connection to the server was lost before the result of the request was known.",
        "Check the state before you repeat the command: `quorate status`, `quorate etcd-snapshot ls`.";
    Stopping "stopping" NotRunning
        "The server is stopping, and cannot start or finish this request.",
        "Try again when it runs.";
    Busy "busy" Busy
        "Another snapshot, defragmentation or restore drill is running.",
        "Try again, or add `--wait`.";

    // Snapshots.
    SnapshotNotFound "snapshot-not-found" NotFound
        "There is no snapshot of this name, or no file at this path.",
        "`quorate etcd-snapshot ls` shows all snapshots; anything with a `/` is a path.";
    SnapshotAmbiguous "snapshot-ambiguous" Usage
        "Two different snapshots have this name, one on this node and one in object storage.",
        "Specify one of them, by its path or its `s3://` URL.";
    NoGoodSnapshot "no-good-snapshot" NotFound
        "The newest good snapshot was requested, but there is none.",
        "`quorate etcd-snapshot ls` shows all snapshots; specify one of them to use it anyway.";
    NoSnapshots "no-snapshots" NotFound
        "There is no snapshot in this directory.",
        "Save one (`quorate etcd-snapshot save`), or set the right directory with `--dir`.";
    SnapshotCorrupt "snapshot-corrupt" Failed
        "The snapshot is damaged: a checksum or structure in it is wrong.",
        "Do not restore it. Use another one, or another copy of it.";
    SnapshotUnhashed "snapshot-unhashed" Failed
        "The file has no trailing SHA-256: it is a raw copy of a database, or cut off.",
        "If it is a copy of `member/snap/db`, add `--skip-hash-check`: everything else is still verified.";
    ArchiveInvalid "archive-invalid" Failed
        "The compressed snapshot cannot be unpacked, or is cut off.",
        "Use another one, or another copy of it.";
    SnapshotStreamFailed "snapshot-stream-failed" Failed
        "etcd stopped sending its snapshot, or sent an incomplete one. No file was kept.",
        "See `quorate status`, and try again.";
    SnapshotNotReadBack "snapshot-not-read-back" Failed
        "The data read back from disk differs from what was written. No file was kept.",
        "Check `dmesg` for disk errors, and try again.";
    SnapshotTimeout "snapshot-timeout" Failed
        "The snapshot took longer than `etcd-snapshot-timeout` and was cancelled; no files are left.",
        "See `quorate status`; raise the limit if the database has grown.";
    SnapshotDirUnusable "snapshot-dir-unusable" Usage
        "Snapshots cannot be kept in this directory.",
        "Create the directory, or choose another `etcd-snapshot-dir`.";
    SnapshotDirExposed "snapshot-dir-exposed" Refused
        "Other users can write to the snapshot directory, and could replace what is restored later.",
        "Correct its owner and mode, or choose another `etcd-snapshot-dir`.";
    SnapshotLeftover "snapshot-leftover" Failed
        "The snapshot failed, and its unfinished file could not be removed.",
        "See `dmesg`, then remove the file that is named.";
    SnapshotHeld "snapshot-held" Refused
        "The snapshot is held, so it is not deleted.",
        "`quorate etcd-snapshot release NAME` if it may be deleted.";
    ManifestUnreadable "manifest-unreadable" Refused
        "The manifest of a snapshot cannot be read, so the snapshot may be held. It was not deleted.",
        "Check it, in `.metadata` next to the snapshot; `--force` deletes both.";
    LastGoodSnapshot "last-good-snapshot" Refused
        "The snapshot is the last good one, so it is not deleted.",
        "Save another one first, or add `--force`.";
    InvalidSnapshotName "invalid-snapshot-name" Usage
        "The name is not a valid snapshot name.",
        "Choose another `--name`.";
    KeyNotFound "key-not-found" NotFound
        "The snapshot does not have this key (at this revision).",
        "`quorate etcd-snapshot ls NAME` shows its keys.";
    RevisionUnavailable "revision-unavailable" Failed
        "The revision is newer than the snapshot, or was compacted.",
        "Omit `--rev`, or use one within the limits in the message.";
    NotComparable "not-comparable" Failed
        "The snapshot cannot be compared with the live member.",
        "Verify it without `--against-live`.";
    LiveMemberDiffers "live-member-differs" Failed
        "The snapshot is good, but the live member has other keys or values at its revision.",
        "If it is a snapshot of this cluster, the member or the snapshot is wrong: keep both, and compare the members.";
    DatabaseDamaged "database-damaged" Failed
        "etcd's database has damaged pages.",
        "Save a snapshot, which verifies everything, and see the log; restore the newest good snapshot.";
    DatabaseChanged "database-changed" Failed
        "etcd was restarted, or its database was replaced, while it was read; a defragmentation does that.",
        "Try again.";
    QuotaStillFull "quota-still-full" Failed
        "The database is still at its quota after it was compacted and defragmented; the NOSPACE alarm stays.",
        "Delete keys (`quorate space` shows which use the most) and run it again, or raise `etcd-quota-backend-bytes`.";

    // Reset and restore.
    NoEtcdData "no-etcd-data" NotFound
        "There is no etcd data to reset.",
        "Mount the disk of the data, or restore a snapshot.";
    NoEarlierData "no-earlier-data" NotFound
        "There is no data from before a reset to return to.",
        "`quorate etcd-snapshot ls` shows the snapshots that can be restored.";
    SnapshotNeedsOtherEtcd "snapshot-needs-other-etcd" Refused
        "The snapshot was written by an etcd version that this etcd cannot read.",
        "Restore it with the etcd version in the message, set with `--etcd-binary`.";
    RevisionOverflow "revision-overflow" Usage
        "The revision of the snapshot cannot be bumped by this much.",
        "Use a smaller `--cluster-reset-bump-revision`.";
    SnapshotEmpty "snapshot-empty" Refused
        "The snapshot has no keys: etcd would be empty after the restore.",
        "Restore another one, or add `--allow-empty`.";
    InvalidMembership "invalid-membership" Usage
        "The given members cannot form a cluster, or do not include the requested one.",
        "Correct `--initial-cluster` and the related options.";
    JournalUnreadable "journal-unreadable" Refused
        "The journal of an interrupted reset or restore cannot be read.",
        "Check `server/db/etcd` and the newest `etcd-old-…`, and follow the message.";
    OperationUndecided "operation-undecided" Refused
        "A restore over several servers has begun on this one and is not decided: either data could be the wrong ones.",
        "Finish or undo it on the server that coordinates it.";
    PathInTheWay "path-in-the-way" Refused
        "A reset cannot move data to its place, because a file appeared there since it was interrupted.",
        "Move it away, and start again.";
    WalMissing "wal-missing" Refused
        "The member's data has no write-ahead log.",
        "Restore the newest snapshot, or the database without its log (`--skip-hash-check`).";
    IsolatedEtcdFailed "isolated-etcd-failed" Failed
        "The isolated etcd on the new data exited or did not become healthy.",
        "Its last lines are part of the message. Nothing was changed; restore another snapshot.";
    RestoreCheckFailed "restore-check-failed" Failed
        "etcd runs on the new data, but its contents differ from what was built.",
        "Nothing was changed, or it was rolled back. Restore another snapshot, and report this.";
    ResetRolledBack "reset-rolled-back" Failed
        "A reset or restore failed after the data was swapped, and was rolled back: the previous data is in place.",
        "Fix the cause, then run the same command again.";
    ResetNotRolledBack "reset-not-rolled-back" Failed
        "A reset or restore failed, and cannot be rolled back now.",
        "Fix the cause, then start the server without the flags: it finishes or rolls back from its journal.";
    ResetNotRecorded "reset-not-recorded" Failed
        "A reset or restore has completed with verified data in place, but this could not be recorded.",
        "Fix the cause, then start the server without the flags: it finishes from its journal.";
    DrillFailed "drill-failed" Failed
        "A restore drill showed that a snapshot cannot be restored, or differs from what was saved.",
        "Do not rely on this snapshot: save another one, and drill that (`--drill latest`).";

    // Object storage.
    S3Unreachable "s3-unreachable" Failed
        "The object store cannot be reached.",
        "Check `etcd-s3-endpoint` and the network, then `quorate etcd-snapshot s3-check`.";
    S3Timeout "s3-timeout" Failed
        "The object store did not answer in time.",
        "Check `etcd-s3-endpoint` and the network, then `quorate etcd-snapshot s3-check`.";
    S3Tls "s3-tls" Failed
        "The TLS connection to the object store failed: usually because its certificate is not trusted.",
        "Set its CA with `etcd-s3-endpoint-ca`; for plain HTTP set `etcd-s3-insecure`.";
    S3Proxy "s3-proxy" Failed
        "The proxy refused the request.",
        "Check `etcd-s3-proxy`, HTTPS_PROXY and NO_PROXY.";
    S3NoCredentials "s3-no-credentials" Failed
        "There are no credentials for the object store.",
        "Set `etcd-s3-access-key` and `etcd-s3-secret-key`, or assign a role to this machine.";
    S3AccessDenied "s3-access-denied" Failed
        "The credentials are valid, but lack the permission.",
        "Give them the permissions that `quorate etcd-snapshot s3-check` prints.";
    S3UnknownAccessKey "s3-unknown-access-key" Failed
        "The object store does not know the access key.",
        "Check `etcd-s3-access-key`.";
    S3WrongSecretKey "s3-wrong-secret-key" Failed
        "The secret key does not belong to the access key.",
        "Check `etcd-s3-secret-key`, and that `etcd-s3-region` is that of the bucket.";
    S3CredentialsExpired "s3-credentials-expired" Failed
        "The credentials have expired.",
        "Get new ones; a role renews them automatically.";
    S3ClockSkewed "s3-clock-skewed" Failed
        "The clocks of this machine and of the object store are too far apart.",
        "Set this machine's clock (`timedatectl`).";
    S3BucketNotFound "s3-bucket-not-found" Failed
        "The bucket does not exist.",
        "Check `etcd-s3-bucket`; create the bucket first.";
    S3ObjectNotFound "s3-object-not-found" NotFound
        "The object does not exist.",
        "`quorate etcd-snapshot ls --s3` shows all objects.";
    S3WrongRegion "s3-wrong-region" Failed
        "The bucket is in another region.",
        "Set `etcd-s3-region`, and an `etcd-s3-endpoint` there.";
    S3ObjectLocked "s3-object-locked" Failed
        "An object lock protects the object.",
        "Wait until the lock has expired.";
    S3ObjectArchived "s3-object-archived" Failed
        "The object is in an archive storage class.",
        "Restore it from the archive first.";
    S3Throttled "s3-throttled" Failed
        "The object store is overloaded, or limits the rate of requests.",
        "Try again later.";
    S3ChecksumMismatch "s3-checksum-mismatch" Failed
        "The stored or received object differs from what was uploaded.",
        "Do not trust this copy; try again, and see `quorate etcd-snapshot s3-check`.";
    S3NameConflict "s3-name-conflict" Failed
        "Another snapshot has this name in the bucket already.",
        "`quorate etcd-snapshot ls --s3` shows it.";
    S3ObjectReplaced "s3-object-replaced" Failed
        "The object was replaced by another one in the meantime.",
        "Run `quorate etcd-snapshot ls --s3`, and specify one.";
    S3SourceChanged "s3-source-changed" Failed
        "The file to upload differs from the verified one.",
        "Run Run `quorate etcd-snapshot verify`, and save another one.";
    S3Unsupported "s3-unsupported" Failed
        "The object store does not support this request, or its response is not valid S3.",
        "Run `quorate etcd-snapshot s3-check`.";
    S3RequestFailed "s3-request-failed" Failed
        "A request to the object store failed for another reason, which is printed.",
        "Run `quorate etcd-snapshot s3-check`.";
    UploadPending "upload-pending" Failed
        "The snapshot is saved and verified on this node, but could not be uploaded yet. The upload is retried until it succeeds.",
        "Fix the printed cause; the message shows the command that cancels the upload.";
    UploadRefused "upload-refused" Failed
        "The snapshot is not uploaded, because it was changed since it was saved, or its name is in use in the bucket.",
        "Run Run `quorate etcd-snapshot verify`, and save another one.";
    UploadSourceMissing "upload-source-missing" Failed
        "The snapshot to upload does not exist any more, or its disk does not respond.",
        "`quorate etcd-snapshot ls`; check that its disk is mounted.";
    UploadDisabled "upload-disabled" Failed
        "The snapshot is saved on this node, but not uploaded: `etcd-s3` is off now.",
        "Set `etcd-s3: true` again to upload it.";

    // Problems of a running server, in `quorate status` and in its log.
    EtcdNotServing "etcd-not-serving" Failed
        "etcd does not run, does not answer, has no leader, or is a learner.",
        "See the message, `quorate status` and the log.";
    EtcdRestarting "etcd-restarting" Failed
        "etcd exited at least twice within ten minutes.",
        "Find the reason in its last lines: `quorate status -o json`, `journalctl -u quorate-server`.";
    DataMissing "data-missing" Refused
        "etcd's data directory was deleted, or its disk unmounted, while etcd runs. etcd ends within 30 seconds and is not started again.",
        "Mount the disk; or restore the snapshot `rescue-…` that quorate saved at once, or the newest one.";
    DatabaseMissing "database-missing" Failed
        "etcd's database file was deleted while etcd has it open.",
        "See data-missing.";
    LogMissing "log-missing" Failed
        "etcd's write-ahead log was deleted while etcd has it open.",
        "See data-missing.";
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
        "etcd's data directory was replaced by another directory.",
        "Find out which program did that; restore the snapshot `rescue-…` if the data is lost.";
    DatabaseReplaced "database-replaced" Failed
        "etcd's database was replaced by another file.",
        "Find out which program did that; restore the snapshot `rescue-…` if the data is lost.";
    LogReplaced "log-replaced" Failed
        "etcd's write-ahead log was replaced by other files.",
        "Find out which program did that; restore the snapshot `rescue-…` if the data is lost.";
    DiskNotAnswering "disk-not-answering" Failed
        "The file system of the data has not responded for ten seconds.",
        "See `dmesg`; check the disk or the network storage.";
    DiskFull "disk-full" Failed
        "Less than 16 MiB are free under etcd's data.",
        "Free some space there.";
    DiskInodesFull "disk-inodes-full" Failed
        "Less than 16 inodes are free under etcd's data.",
        "Remove unneeded files there.";
    DiskReadOnly "disk-read-only" Failed
        "The file system of etcd's data cannot be written.",
        "See `dmesg` for the reason, and remount it writable.";
    DiskLow "disk-low" Failed
        "Less than 256 MiB are free under etcd's data.",
        "Free some space there.";
    DiskInodesLow "disk-inodes-low" Failed
        "Less than 1000 inodes are free under etcd's data.",
        "Remove unneeded files there.";
    SnapshotDiskFull "snapshot-disk-full" Failed
        "Less than 16 MiB are free under the snapshots.",
        "Free some space there: `quorate etcd-snapshot prune`.";
    SnapshotDiskInodesFull "snapshot-disk-inodes-full" Failed
        "Less than 16 inodes are free under the snapshots.",
        "Remove unneeded files there.";
    SnapshotDiskReadOnly "snapshot-disk-read-only" Failed
        "The file system of the snapshots cannot be written.",
        "See `dmesg` for the reason, and remount it writable.";
    SnapshotDiskLow "snapshot-disk-low" Failed
        "Less than 256 MiB are free under the snapshots.",
        "Free some space there: `quorate etcd-snapshot prune`.";
    SnapshotDiskInodesLow "snapshot-disk-inodes-low" Failed
        "Less than 1000 inodes are free under the snapshots.",
        "Remove unneeded files there.";
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
        "`quorate space` shows which keys use the most; compact, delete, or raise `etcd-quota-backend-bytes`.";
    SnapshotsFailing "snapshots-failing" Failed
        "The last three snapshots failed.",
        "The message has the reason; retry with `quorate etcd-snapshot save`.";
    SnapshotsUnlisted "snapshots-unlisted" Failed
        "The snapshot directory cannot be listed; the displayed snapshots are outdated.",
        "Check `dmesg`, and the permissions of the directory.";
}

impl Code {
    /// The code of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

/// What is not known, because it came from another version.
impl Default for Code {
    fn default() -> Self {
        Self::Unknown
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

/// A code of a newer server that this version does not know becomes [`Code::Unknown`]; its message is still complete.
impl<'de> Deserialize<'de> for Code {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self::named(&name).unwrap_or(Self::Unknown))
    }
}
