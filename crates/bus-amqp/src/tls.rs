//! Which brokers are trusted, and TLS with them.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::ConnectError;

/// Where distributions keep the certificates that they trust. A scratch image has none of them.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// TLS as a client. The provider is passed, not installed, so that nothing global is touched.
pub(crate) fn settings(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, ConnectError> {
    let roots = match ca_file {
        Some(path) => of_file(path)?,
        None => of_system(),
    };
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|source| ConnectError::Tls { source })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Agrees on TLS over `stream` with `host`.
pub(crate) async fn agree(
    settings: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<TlsStream<TcpStream>, ConnectError> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|_invalid| ConnectError::ServerName { host: host.to_owned() })?;
    TlsConnector::from(settings)
        .connect(name, stream)
        .await
        .map_err(|source| ConnectError::Handshake { host: host.to_owned(), source })
}

fn of_file(path: &Path) -> Result<RootCertStore, ConnectError> {
    let failed = |detail: String| ConnectError::CaFile { path: path.to_owned(), detail };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))? {
        let certificate = certificate.map_err(|error| failed(error.to_string()))?;
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(failed("it holds no PEM certificate".to_owned()));
    }
    Ok(roots)
}

/// The first bundle of the system that holds certificates, else the roots built in. Single certificates that cannot be
/// parsed are passed over, as every system bundle has some.
fn of_system() -> RootCertStore {
    for path in SYSTEM_BUNDLES {
        let Ok(certificates) = CertificateDer::pem_file_iter(path) else { continue };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        if !roots.is_empty() {
            return roots;
        }
    }
    RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = settings(Some(file.path())).unwrap_err().to_string();
        assert!(error.contains(file.path().to_str().unwrap()), "{error}");
        let error = settings(Some(Path::new("/nonexistent/ca.pem"))).unwrap_err();
        assert!(error.is_final() && error.to_string().contains("/nonexistent/ca.pem"), "{error}");
    }

    #[test]
    fn somebody_is_always_trusted() {
        assert!(!of_system().is_empty());
    }
}
