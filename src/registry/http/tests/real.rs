//! Against Debian's `docker-registry` on loopback.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::*;

struct Real {
    host: String,
    process: Child,
    _dir: tempfile::TempDir,
}

impl Real {
    /// Starts a registry, or says why not. With `user`, it wants `user:pw`.
    async fn start(user: Option<&str>) -> Option<Self> {
        if !Path::new("/usr/bin/docker-registry").exists() {
            eprintln!("skipped: the Debian package docker-registry is not installed");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let auth = match user {
            None => String::new(),
            Some(user) => {
                let file = dir.path().join("htpasswd");
                let made = Command::new("htpasswd")
                    .args(["-Bbc", file.to_str().unwrap(), user, "pw"])
                    .stderr(Stdio::null())
                    .status();
                if !made.is_ok_and(|status| status.success()) {
                    eprintln!("skipped: the Debian package apache2-utils is not installed");
                    return None;
                }
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
            }
        };
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let root = dir.path().join("data");
        let config = dir.path().join("config.yml");
        let mut file = std::fs::File::create(&config).unwrap();
        write!(file, "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{auth}", root.display()).unwrap();
        let process = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let real = Self {
            host: format!("127.0.0.1:{port}"),
            process,
            _dir: dir,
        };
        real.wait().await;
        Some(real)
    }

    async fn wait(&self) {
        for _ in 0..200 {
            if tokio::net::TcpStream::connect(&self.host).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the registry does not listen");
    }

    /// Pushes with the least that the protocol asks for.
    async fn push(&self, path: &str, media_type: &str, bytes: &[u8], user: Option<&str>) {
        let tls = super::super::tls::client_config(&fast()).unwrap();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .build()
            .unwrap();
        let sign = |request: reqwest::RequestBuilder| match user {
            Some(user) => request.basic_auth(user, Some("pw")),
            None => request,
        };
        let url = if path.contains("/manifests/") {
            format!("http://{}/v2/{path}", self.host)
        } else {
            let begun = sign(client.post(format!("http://{}/v2/{path}/blobs/uploads/", self.host)))
                .send()
                .await
                .unwrap();
            assert_eq!(begun.status().as_u16(), 202);
            let location = begun.headers()["location"].to_str().unwrap();
            format!("{location}&digest={}", Digest::of(bytes))
        };
        let put = sign(client.put(url))
            .header("content-type", media_type)
            .body(bytes.to_vec())
            .send()
            .await
            .unwrap();
        assert_eq!(put.status().as_u16(), 201, "{}", put.text().await.unwrap());
    }

    async fn push_image(&self, user: Option<&str>) -> (Vec<u8>, Vec<u8>) {
        let (config, layer) = (br#"{"os":"linux"}"#.to_vec(), some_bytes());
        self.push("team/app", "application/octet-stream", &config, user).await;
        self.push("team/app", "application/octet-stream", &layer, user).await;
        let manifest = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": { "mediaType": "application/vnd.docker.container.image.v1+json", "digest": Digest::of(&config), "size": config.len() },
            "layers": [{ "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": Digest::of(&layer), "size": layer.len() }],
        });
        let manifest = serde_json::to_vec(&manifest).unwrap();
        self.push(
            "team/app/manifests/1.0",
            "application/vnd.docker.distribution.manifest.v2+json",
            &manifest,
            user,
        )
        .await;
        (manifest, layer)
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn pulls_by_tag_and_by_digest_from_a_real_registry() {
    let Some(real) = Real::start(None).await else {
        return;
    };
    let (manifest, layer) = real.push_image(None).await;
    let registry = HttpRegistry::new(&real.host, HttpOptions::default()).unwrap();
    let by_tag = registry.manifest("team/app", &tag("1.0")).await.unwrap();
    assert_eq!(by_tag.bytes, manifest);
    assert_eq!(
        by_tag.descriptor.media_type.0,
        "application/vnd.docker.distribution.manifest.v2+json"
    );
    let by_digest = registry
        .manifest("team/app", &ManifestKey::Digest(by_tag.descriptor.digest))
        .await
        .unwrap();
    assert_eq!(by_digest.bytes, manifest);
    let content = crate::conformance::registry::Content {
        repository: "team/app",
        tag: "1.0",
        manifest: &manifest,
        blob: &layer,
    };
    crate::conformance::registry::registry(&registry, content).await;
    let blob = blob_of(&layer);
    for offset in [0, 77_777] {
        let chunks: Vec<Bytes> = registry
            .blob("team/app", &blob, offset)
            .await
            .unwrap()
            .try_collect()
            .await
            .unwrap();
        assert_eq!(chunks.concat(), layer[offset as usize..]);
    }
    assert!(
        registry
            .manifest("team/app", &tag("2.0"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        registry
            .manifest("team/none", &tag("1.0"))
            .await
            .unwrap_err()
            .is_not_found()
    );
    assert!(
        registry
            .blob("team/app", &blob_of(b"absent"), 0)
            .await
            .err()
            .unwrap()
            .is_not_found()
    );
}

#[tokio::test]
async fn a_real_registry_with_a_password() {
    let Some(real) = Real::start(Some("me")).await else {
        return;
    };
    let (manifest, _) = real.push_image(Some("me")).await;
    let open = |credentials| HttpRegistry::new(&real.host, HttpOptions::default().credentials(credentials)).unwrap();
    let right = open(Credentials::password("me", "pw"));
    assert_eq!(right.manifest("team/app", &tag("1.0")).await.unwrap().bytes, manifest);
    for wrong in [
        Credentials::Anonymous,
        Credentials::password("me", "no"),
        Credentials::IdentityToken("x".into()),
    ] {
        assert_eq!(
            open(wrong).manifest("team/app", &tag("1.0")).await.unwrap_err().kind(),
            &ErrorKind::Denied
        );
    }
}
