//! What containers share: volumes and networks that go with their handle.

use std::net::IpAddr;

use super::{LABEL, docker, remove, succeeded, text};

/// A named volume; removed with its handle, which has to outlive the containers that mount it.
#[derive(Debug)]
pub struct Volume {
    name: String,
}

impl Volume {
    pub(super) fn new() -> Self {
        let output = docker().args(["volume", "create", "--label", LABEL]).output();
        Self { name: text(&succeeded("docker volume create", output)) }
    }

    /// By which the engine knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The option that mounts it at `place`; `mode` is `rw` or `ro`.
    pub fn at(&self, place: &str, mode: &str) -> String {
        format!("--volume={}:{place}:{mode}", self.name)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        remove(&["volume", "rm", "-f", &self.name]);
    }
}

/// A bridge with the engine's name service; removed with its handle, which has to outlive its containers.
#[derive(Debug)]
pub struct Network {
    name: String,
    gateway: IpAddr,
}

impl Network {
    pub(super) fn new(name: &str) -> Self {
        succeeded("docker network create", docker().args(["network", "create", "--label", LABEL, name]).output());
        let format = "{{(index .IPAM.Config 0).Gateway}}";
        let gateway = text(&succeeded(
            "docker network inspect",
            docker().args(["network", "inspect", "-f", format, name]).output(),
        ));
        let gateway = gateway.parse().unwrap_or_else(|error| panic!("the gateway of {name}, {gateway:?}: {error}"));
        Self { name: name.to_owned(), gateway }
    }

    /// By which the engine knows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Under which its containers reach this machine.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(&["network", "rm", &self.name]);
    }
}
