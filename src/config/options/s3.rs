//! Object storage.

use crate::config::options::spec::{OptionKind, Spec, noted, s3, secret, spec};

pub const ETCD_S3: Spec = s3(spec(
    "etcd-s3",
    OptionKind::Switch,
    "false",
    "Also upload snapshots to S3. For subcommands of etcd-snapshot: work on the snapshots in S3.",
));

pub const ETCD_S3_ENDPOINT: Spec = s3(spec(
    "etcd-s3-endpoint",
    OptionKind::Endpoint,
    "s3.amazonaws.com",
    "Host, host:port or URL of the S3 endpoint.",
));

pub const ETCD_S3_ENDPOINT_CA: Spec = s3(spec(
    "etcd-s3-endpoint-ca",
    OptionKind::Text,
    "",
    "CA certificates to trust for the endpoint, in addition to the system's: paths, PEM, or PEM in base64.",
));

pub const ETCD_S3_SKIP_SSL_VERIFY: Spec = s3(spec(
    "etcd-s3-skip-ssl-verify",
    OptionKind::Switch,
    "false",
    "Do not verify the endpoint's TLS certificate. For testing only.",
));

pub const ETCD_S3_ACCESS_KEY: Spec = s3(noted(
    "the AWS credential chain: environment, profile, web identity, container, instance role",
    secret(spec("etcd-s3-access-key", OptionKind::Text, "", "Access key.")),
));

pub const ETCD_S3_SECRET_KEY: Spec =
    s3(secret(spec("etcd-s3-secret-key", OptionKind::Text, "", "Secret key. Prefer etcd-s3-config-file.")));

pub const ETCD_S3_SESSION_TOKEN: Spec =
    s3(secret(spec("etcd-s3-session-token", OptionKind::Text, "", "Session token of temporary credentials.")));

pub const ETCD_S3_BUCKET: Spec = s3(spec("etcd-s3-bucket", OptionKind::Text, "", "Name of the bucket."));

pub const ETCD_S3_BUCKET_LOOKUP_TYPE: Spec = s3(noted(
    "auto: dns at AWS, path elsewhere",
    spec(
        "etcd-s3-bucket-lookup-type",
        OptionKind::Choice(&["auto", "dns", "path"]),
        "",
        "How the bucket is addressed: auto, dns (in the host name) or path.",
    ),
));

pub const ETCD_S3_REGION: Spec = s3(noted(
    "taken from the endpoint's host name, or us-east-1",
    spec("etcd-s3-region", OptionKind::Text, "", "Region of the bucket."),
));

pub const ETCD_S3_FOLDER: Spec = s3(spec("etcd-s3-folder", OptionKind::Text, "", "Folder (key prefix) in the bucket."));

pub const ETCD_S3_INSECURE: Spec =
    s3(spec("etcd-s3-insecure", OptionKind::Switch, "false", "Use plain HTTP, without TLS."));

pub const ETCD_S3_PROXY: Spec = s3(noted(
    "HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY",
    secret(spec("etcd-s3-proxy", OptionKind::Text, "", "URL of a proxy, or none.")),
));

pub const ETCD_S3_TIMEOUT: Spec = s3(spec(
    "etcd-s3-timeout",
    OptionKind::Duration,
    "30s",
    "Inactivity timeout of a request or of a part of a transfer; it is retried after that.",
));

pub const ETCD_S3_RETENTION: Spec = s3(noted(
    "as etcd-snapshot-retention",
    spec(
        "etcd-s3-retention",
        OptionKind::Count,
        "",
        "Number of snapshots of this node and base name to keep in S3; 0 keeps all.",
    ),
));

pub const ETCD_S3_SSE: Spec = s3(spec(
    "etcd-s3-sse",
    OptionKind::Text,
    "",
    "Server-side encryption: AES256, aws:kms, aws:kms:KEY, or sse-c:FILE with a key of 32 bytes.",
));

pub const ETCD_S3_STORAGE_CLASS: Spec =
    s3(spec("etcd-s3-storage-class", OptionKind::Text, "", "Storage class, such as STANDARD_IA."));

pub const ETCD_S3_ONLY: Spec =
    s3(spec("etcd-s3-only", OptionKind::Switch, "false", "Keep no local copy once an upload is verified."));

pub const ETCD_S3_CONFIG_FILE: Spec = s3(spec(
    "etcd-s3-config-file",
    OptionKind::Path,
    "",
    "File of mode 0600 with these settings (YAML, or NAME=value), for secrets; read again at each use. Other sources take precedence.",
));
