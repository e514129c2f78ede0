//! Which servers are trusted.

use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::BuildError;

/// Whether a server has to prove who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verification {
    /// By a certificate that leads to a known root and carries the server's name.
    #[default]
    Full,
    /// Not at all. Only for callers that were asked for it by name.
    Off,
}

/// The TLS settings of a client. The provider is passed, not installed, so that nothing global is touched.
pub(crate) fn configuration(
    verification: Verification,
    ca_file: Option<&Path>,
) -> Result<rustls::ClientConfig, BuildError> {
    let provider = Arc::new(ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|source| BuildError::Tls { source })?;
    let mut config = match verification {
        Verification::Full => builder.with_root_certificates(roots(ca_file)?).with_no_client_auth(),
        Verification::Off => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustEverybody { provider }))
            .with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn roots(ca_file: Option<&Path>) -> Result<RootCertStore, BuildError> {
    let mut roots = RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    let Some(path) = ca_file else {
        return Ok(roots);
    };
    let failed = |detail: String| BuildError::CaFile { path: path.to_owned(), detail };
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(error.to_string()))?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().map_err(|error| failed(error.to_string()))?;
    // Every bundle of a system has some that cannot be used.
    let (count, _unusable) = roots.add_parsable_certificates(certificates);
    if count == 0 {
        return Err(failed("it holds no PEM certificate".to_owned()));
    }
    Ok(roots)
}

/// Accepts every certificate; signatures of the handshake are still checked.
#[derive(Debug)]
struct TrustEverybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for TrustEverybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_roots_are_enough_for_a_client() {
        configuration(Verification::Full, None).unwrap();
        configuration(Verification::Off, None).unwrap();
        assert!(roots(None).unwrap().len() > 50);
    }

    #[test]
    fn a_ca_file_that_holds_no_certificate_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        std::fs::write(&path, "nothing\n").unwrap();
        let error = configuration(Verification::Full, Some(&path)).unwrap_err().to_string();
        assert!(error.contains("ca.pem") && error.contains("no PEM certificate"), "{error}");
        let missing = configuration(Verification::Full, Some(&dir.path().join("absent"))).unwrap_err().to_string();
        assert!(missing.contains("absent"), "{missing}");
    }
}
