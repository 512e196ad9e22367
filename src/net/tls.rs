//! TLS for the public listener: rustls with aws-lc-rs, a certificate from files
//! that is read again when it changes, or a self-signed one for development.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio_rustls::TlsAcceptor;

/// Why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file does not hold what it should.
    #[error("{}: no PEM {what}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Certificate or private key.
        what: &'static str,
        /// What the parser says.
        reason: String,
    },
    /// The key is of no use, or belongs to another certificate.
    #[error("certificate and key do not fit: {0}")]
    Unfit(rustls::Error),
    /// The self-signed certificate cannot be made.
    #[error("self-signed certificate: {0}")]
    SelfSigned(rcgen::Error),
}

/// Where the certificate comes from, and the one in use.
#[derive(Debug)]
pub struct Certificate {
    current: ArcSwap<CertifiedKey>,
    files: Option<Files>,
}

#[derive(Debug)]
struct Files {
    certificate: PathBuf,
    key: PathBuf,
    /// The contents that were tried last, good or not: each state of the files is
    /// tried, reported and counted once.
    tried: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl Certificate {
    /// Reads a PEM chain (leaf first) and its PEM key.
    ///
    /// # Errors
    /// [`TlsError`] when they cannot be read or do not belong together.
    pub fn from_files(certificate: &Path, key: &Path) -> Result<Arc<Self>, TlsError> {
        let contents = (read(certificate)?, read(key)?);
        let pair = certified_key(certificate, key, &contents)?;
        Ok(Arc::new(Self {
            current: ArcSwap::from_pointee(pair),
            files: Some(Files {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                tried: Mutex::new(contents),
            }),
        }))
    }

    /// Makes a certificate for `localhost` and `addresses` that no client trusts by
    /// itself; for development.
    ///
    /// # Errors
    /// [`TlsError::SelfSigned`].
    pub fn self_signed(addresses: &[IpAddr]) -> Result<Arc<Self>, TlsError> {
        let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        names.extend(addresses.iter().map(IpAddr::to_string));
        names.dedup();
        let made = rcgen::generate_simple_self_signed(names).map_err(TlsError::SelfSigned)?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let chain = vec![made.cert.der().clone()];
        let pair = CertifiedKey::from_der(chain, key.into(), &aws_lc_rs::default_provider())
            .map_err(TlsError::Unfit)?;
        Ok(Arc::new(Self { current: ArcSwap::from_pointee(pair), files: None }))
    }

    /// Accepts TLS 1.2 and 1.3 with this certificate, whichever it is at that time;
    /// offers HTTP/2 and HTTP/1.1 (RFC 7301).
    ///
    /// # Errors
    /// [`TlsError::Unfit`] when the provider lacks a protocol version.
    pub fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unfit)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again. `None`: nothing has changed since the last time;
    /// an error leaves the current certificate in use. Blocks on file reads.
    pub fn reload(&self) -> Option<Result<(), TlsError>> {
        let files = self.files.as_ref()?;
        // Files that are away for a moment, as while they are replaced, are looked at next time.
        let contents = (read(&files.certificate).ok()?, read(&files.key).ok()?);
        let mut tried = files.tried.lock().unwrap_or_else(PoisonError::into_inner);
        if *tried == contents {
            return None;
        }
        let pair = certified_key(&files.certificate, &files.key, &contents);
        *tried = contents;
        Some(pair.map(|pair| self.current.store(Arc::new(pair))))
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::Unreadable { path: path.to_owned(), source })
}

fn certified_key(
    certificate: &Path,
    key: &Path,
    (chain_pem, key_pem): &(Vec<u8>, Vec<u8>),
) -> Result<CertifiedKey, TlsError> {
    let malformed = |path: &Path, what, reason: &dyn std::fmt::Display| TlsError::Malformed {
        path: path.to_owned(),
        what,
        reason: reason.to_string(),
    };
    let chain = CertificateDer::pem_slice_iter(chain_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(certificate, "certificate", &error))?;
    if chain.is_empty() {
        return Err(malformed(certificate, "certificate", &"nothing found"));
    }
    let key = PrivateKeyDer::from_pem_slice(key_pem)
        .map_err(|error| malformed(key, "private key", &error))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(TlsError::Unfit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem_pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn changed_files_are_taken_and_broken_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (cert_path, key_path) = (folder.path().join("c.pem"), folder.path().join("k.pem"));
        let (cert, key) = pem_pair();
        std::fs::write(&cert_path, &cert).unwrap();
        std::fs::write(&key_path, &key).unwrap();
        let certificate = Certificate::from_files(&cert_path, &key_path).unwrap();
        let first = certificate.current.load_full();
        assert!(certificate.reload().is_none(), "nothing has changed");

        let (other_cert, other_key) = pem_pair();
        std::fs::write(&cert_path, &other_cert).unwrap();
        let mismatch = certificate.reload().unwrap();
        assert!(matches!(mismatch, Err(TlsError::Unfit(_))), "{mismatch:?}");
        assert!(certificate.reload().is_none(), "the same fault is reported once");
        assert!(Arc::ptr_eq(&first, &certificate.current.load_full()));

        std::fs::write(&key_path, &other_key).unwrap();
        certificate.reload().unwrap().unwrap();
        let second = certificate.current.load_full();
        assert_ne!(first.cert, second.cert);

        std::fs::write(&cert_path, "no PEM").unwrap();
        assert!(matches!(certificate.reload(), Some(Err(TlsError::Malformed { .. }))));
        std::fs::remove_file(&cert_path).unwrap();
        assert!(certificate.reload().is_none());
        assert!(Arc::ptr_eq(&second, &certificate.current.load_full()));
    }

    #[test]
    fn missing_and_foreign_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.pem");
        let error = Certificate::from_files(&path, &path).unwrap_err().to_string();
        assert!(error.contains("c.pem: "), "{error}");
        std::fs::write(&path, "").unwrap();
        let error = Certificate::from_files(&path, &path).unwrap_err().to_string();
        assert!(error.contains("no PEM certificate"), "{error}");
    }
}
