//! TLS to a store: whom to believe, and what to prove oneself with. The files are read for each connection, so that
//! certificates can be renewed while an agent runs.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    },
};

use crate::error::shown;

/// No file of certificates is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// The files, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Certificates of the authorities that may have signed the store's.
    pub ca: PathBuf,
    /// This host's certificate, where the store asks for one, and the key that goes with it.
    pub own: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// Talks over that connection with the member of that name, and only with it.
    ///
    /// # Errors
    /// One line: a file that cannot be used, or a member that does not prove who it is.
    pub async fn talk(&self, member: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let host = member.rsplit_once(':').map_or(member, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
        let connector = TlsConnector::from(Arc::new(self.config()?));
        connector.connect(name, stream).await.map_err(|error| error.to_string())
    }

    /// Reads the files.
    ///
    /// # Errors
    /// One line that names the file.
    pub fn config(&self) -> Result<ClientConfig, String> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca)? {
            roots.add(certificate).map_err(|error| named(&self.ca, &error.to_string()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
        let builder = builder.with_root_certificates(roots);
        let mut config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let text = secret(key).map_err(|error| named(key, &error.to_string()))?;
                let parsed = PrivateKeyDer::from_pem_slice(text.as_bytes());
                let parsed = parsed.map_err(|_| named(key, "it is no private key in PEM"))?;
                builder
                    .with_client_auth_cert(certificates(certificate)?, parsed)
                    .map_err(|error| named(certificate, &error.to_string()))?
            }
        };
        // HTTP/2, and nothing else (RFC 9113, section 3.2).
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let text = File::open(path).and_then(text).map_err(|error| named(path, &error.to_string()))?;
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(named(path, "it has no certificate in PEM")),
    }
}

/// The text of a file that no others can read.
///
/// # Errors
/// When it cannot be read, or others can read it.
pub fn secret(path: &Path) -> io::Result<String> {
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let mode = file.metadata()?.mode();
    if mode & 0o007 != 0 {
        return Err(io::Error::other(format!(
            "everybody can read or write it (mode {:04o}): chmod o= {}",
            mode & 0o7777,
            shown(&path.display().to_string())
        )));
    }
    text(file)
}

fn text(file: File) -> io::Result<String> {
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST { Err(io::Error::other("it is too long")) } else { Ok(text) }
}

fn named(path: &Path, reason: &str) -> String {
    format!("{}: {}", shown(&path.display().to_string()), shown(reason))
}
