//! The secrets of a cluster on disk and in a join token.
//!
//! ```text
//! cluster file   {"cluster": id, "key": 64 hex digits, "deploy_public": 64 hex digits, "server": url?}   mode 0600
//! deploy key     64 hex digits in a file beside it, FILE.deploy-key                                      mode 0600
//!                (FILE.up names the server of a running `broccoli up`: see `connect.rs` of broccoli-cli)
//! join token     "broccoli-" + base64url( CBOR [server, cluster id, key, public deploy key] )
//! ```
//!
//! The private deploy key never leaves its file. A token contains only the public key.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use broccoli_proto::NodeId;
use broccoli_proto::id::{hex, unhex};
use broccoli_proto::module::DeployPublic;
use broccoli_proto::seal::ClusterKey;
use ed25519_dalek::SigningKey;

use crate::mqtt::ServerUrl;
use crate::private;

const TOKEN_PREFIX: &str = "broccoli-";

/// The data that makes a node a member of a cluster.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The id of the cluster, part of every topic.
    pub id: NodeId,
    /// The key of the cluster.
    pub key: ClusterKey,
    /// The key that verifies the signatures of modules.
    pub deploy_public: DeployPublic,
    /// Its MQTT server, if the file or token names one.
    pub server: Option<ServerUrl>,
}

/// The private key that signs modules.
pub struct DeployKey(pub SigningKey);

/// Why a cluster file, deploy key or token cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum ClusterError {
    /// There is no such file.
    Missing(PathBuf),
    /// A file could not be read or written.
    Io(PathBuf, io::Error),
    /// The file exists already.
    Exists(PathBuf),
    /// The file is damaged, or not of this kind. The text says what is wrong.
    Malformed(PathBuf, String),
    /// The deploy key belongs to another cluster.
    ForeignDeployKey(PathBuf),
    /// The text is not a join token.
    BadToken,
    /// The system provides no random numbers.
    NoEntropy(String),
}

impl fmt::Display for ClusterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ClusterError::Missing(path) => {
                write!(f, "there is no {}", path.display())
            }
            ClusterError::Io(path, error) => write!(f, "{}: {error}", path.display()),
            ClusterError::Exists(path) => {
                write!(f, "{} exists: it holds the key of a cluster", path.display())
            }
            ClusterError::Malformed(path, why) => {
                write!(f, "{} is not a cluster file ({why})", path.display())
            }
            ClusterError::ForeignDeployKey(path) => {
                write!(f, "{} belongs to another cluster: its modules would be refused by every node", path.display())
            }
            ClusterError::BadToken => f.write_str("this is not a join token"),
            ClusterError::NoEntropy(error) => write!(f, "the system provides no random numbers: {error}"),
        }
    }
}

impl std::error::Error for ClusterError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ClusterError::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

impl Cluster {
    /// A new cluster with keys from the random source of the system.
    ///
    /// # Errors
    /// If the system has no random source.
    pub fn generate() -> Result<(Cluster, DeployKey), ClusterError> {
        let deploy = SigningKey::from_bytes(&random()?);
        let id: [u8; 4] = random()?;
        let id = format!("c{}", hex(&id)).parse().expect("letters and digits are a name");
        let deploy_public = DeployPublic(deploy.verifying_key().to_bytes());
        let cluster = Cluster { id, key: ClusterKey::new(random()?), deploy_public, server: None };
        Ok((cluster, DeployKey(deploy)))
    }

    /// Writes the cluster file and the deploy key beside it. Only their owner can read them.
    ///
    /// # Errors
    /// If one of them exists, or cannot be written.
    pub fn create(&self, deploy: &DeployKey, path: &Path) -> Result<(), ClusterError> {
        self.write(path)?;
        write_private(&deploy_key_path(path), &format!("{}\n", hex(&deploy.0.to_bytes()))).inspect_err(|_| {
            // The cluster file alone would block the next attempt.
            let _ = fs::remove_file(path);
        })
    }

    /// Writes the cluster file of a member without a deploy key, which has joined with a token.
    ///
    /// # Errors
    /// If the file exists, or cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ClusterError> {
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            private::create_dir(dir).map_err(|error| ClusterError::Io(dir.into(), error))?;
        }
        let mut json = serde_json::json!({
            "cluster": self.id.as_str(),
            "key": hex(&self.key.to_bytes()),
            "deploy_public": hex(&self.deploy_public.0),
        });
        if let Some(server) = &self.server {
            json["server"] = server.to_url_with_password().into();
        }
        write_private(path, &format!("{json:#}\n"))
    }

    /// Reads a cluster file.
    ///
    /// # Errors
    /// If the file is missing, cannot be read, or is not a cluster file.
    pub fn load(path: &Path) -> Result<Cluster, ClusterError> {
        Cluster::from_json(&read(path)?).map_err(|why| ClusterError::Malformed(path.into(), why))
    }

    /// Reads the content of a cluster file.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn from_json(text: &str) -> Result<Cluster, String> {
        let json: serde_json::Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let field = |name: &str| json[name].as_str().ok_or_else(|| format!("no \"{name}\""));
        let bytes = |name: &str| unhex(field(name)?).ok_or_else(|| format!("bad \"{name}\""));
        let server = match json.get("server").and_then(serde_json::Value::as_str) {
            Some(url) => Some(url.parse().map_err(|error| format!("bad \"server\": {error}"))?),
            None => None,
        };
        Ok(Cluster {
            id: field("cluster")?.parse().map_err(|_| "bad \"cluster\"")?,
            key: ClusterKey::new(bytes("key")?),
            deploy_public: DeployPublic(bytes("deploy_public")?),
            server,
        })
    }

    /// The token with which another machine joins the cluster through `server`.
    pub fn token(&self, server: &ServerUrl) -> String {
        let mut bytes = Vec::new();
        let mut encoder = minicbor::Encoder::new(&mut bytes);
        encoder
            .array(4)
            .and_then(|e| e.str(&server.to_url_with_password()))
            .and_then(|e| e.str(self.id.as_str()))
            .and_then(|e| e.bytes(&self.key.to_bytes()))
            .and_then(|e| e.bytes(&self.deploy_public.0))
            .expect("writing to a Vec cannot fail");
        format!("{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a join token.
    ///
    /// # Errors
    /// If the text is not a token, or the token is damaged.
    pub fn from_token(token: &str) -> Result<Cluster, ClusterError> {
        let body = token.trim().strip_prefix(TOKEN_PREFIX).ok_or(ClusterError::BadToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| ClusterError::BadToken)?;
        decode_token(&bytes).ok_or(ClusterError::BadToken)
    }

    /// User name and password for an MQTT server that accepts only members of the cluster.
    pub fn mqtt_credentials(&self) -> (String, String) {
        (self.id.as_str().into(), self.key.mqtt_password())
    }
}

impl DeployKey {
    /// Reads the deploy key beside a cluster file.
    ///
    /// # Errors
    /// If the key is missing, damaged, or of another cluster.
    pub fn load(cluster_path: &Path, cluster: &Cluster) -> Result<DeployKey, ClusterError> {
        let path = deploy_key_path(cluster_path);
        let bytes = unhex(read(&path)?.trim())
            .ok_or_else(|| ClusterError::Malformed(path.clone(), "not a deploy key".into()))?;
        let key = SigningKey::from_bytes(&bytes);
        if key.verifying_key().to_bytes() != cluster.deploy_public.0 {
            return Err(ClusterError::ForeignDeployKey(path));
        }
        Ok(DeployKey(key))
    }
}

/// A message if other users of this machine can read a file with a key or a token; otherwise none.
pub fn readable_by_others(path: &Path) -> Option<String> {
    private::others_may(path).then(|| {
        let path = path.display();
        format!("other users of this machine can read {path}, which holds a key: close it with `chmod 600 {path}`")
    })
}

/// The path of the deploy key that belongs to a cluster file.
pub fn deploy_key_path(cluster_path: &Path) -> PathBuf {
    let mut name = cluster_path.as_os_str().to_owned();
    name.push(".deploy-key");
    name.into()
}

/// Bytes from the random source of the system.
///
/// # Errors
/// If there is none. A node must not start without it.
pub fn random<const N: usize>() -> Result<[u8; N], ClusterError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| ClusterError::NoEntropy(error.to_string()))?;
    Ok(bytes)
}

fn decode_token(bytes: &[u8]) -> Option<Cluster> {
    let mut decoder = minicbor::Decoder::new(bytes);
    if decoder.array().ok()? != Some(4) {
        return None;
    }
    let server = decoder.str().ok()?.parse().ok()?;
    let id = decoder.str().ok()?.parse().ok()?;
    let key = ClusterKey::new(decoder.bytes().ok()?.try_into().ok()?);
    let deploy_public = DeployPublic(decoder.bytes().ok()?.try_into().ok()?);
    if decoder.position() != bytes.len() {
        return None;
    }
    Some(Cluster { id, key, deploy_public, server: Some(server) })
}

fn read(path: &Path) -> Result<String, ClusterError> {
    // Some editors write a byte order mark at the start of a file.
    let without_mark = |text: String| text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    fs::read_to_string(path).map(without_mark).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ClusterError::Missing(path.into()),
        _ => ClusterError::Io(path.into(), error),
    })
}

/// Writes a new file that only its owner can read.
fn write_private(path: &Path, text: &str) -> Result<(), ClusterError> {
    let mut options = private::options();
    let mut file = options.write(true).create_new(true).open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => ClusterError::Exists(path.into()),
        _ => ClusterError::Io(path.into(), error),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| ClusterError::Io(path.into(), error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_carries_the_public_half_only() {
        let (cluster, deploy) = Cluster::generate().expect("random numbers");
        let server: ServerUrl = "mqtt://u:p@pi.local:1884".parse().expect("a url");
        let token = cluster.token(&server);
        let back = Cluster::from_token(&token).expect("a token");
        assert_eq!((back.id, back.key.to_bytes()), (cluster.id, cluster.key.to_bytes()));
        assert_eq!(back.deploy_public, cluster.deploy_public);
        assert_eq!(back.server.map(|s| s.to_url_with_password()), Some(server.to_url_with_password()));
        let raw = URL_SAFE_NO_PAD.decode(&token[TOKEN_PREFIX.len()..]).expect("base64");
        let private = deploy.0.to_bytes();
        assert!(!raw.windows(32).any(|window| window == private), "the private deploy key is in the token");
    }

    #[test]
    fn damaged_tokens_are_refused() {
        let (cluster, _) = Cluster::generate().expect("random numbers");
        let token = cluster.token(&"mqtt://h".parse().expect("a url"));
        for bad in ["", "broccoli-", &token[..token.len() - 9], &token[1..], "broccoli-!!!"] {
            assert!(matches!(Cluster::from_token(bad), Err(ClusterError::BadToken)), "{bad}");
        }
    }
}
