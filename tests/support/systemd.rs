//! As much of systemd on a system bus of its own as tells a service what job it has.

use std::{
    collections::HashMap,
    fs,
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, Stdio},
};

use futures_util::StreamExt as _;
use zbus::{Connection, MessageStream, ObjectPath, Variant, connection};

const PATH: &str = "/org/freedesktop/systemd1/it";

/// The bus, and who answers on it.
pub struct Systemd {
    bus: Child,
    /// Whoever answers runs on it.
    runtime: tokio::runtime::Runtime,
    /// With it systemd is on the bus.
    connection: Connection,
    address: String,
}

impl Systemd {
    /// Starts it with its files in `dir`; every unit's job is `job`.
    pub fn start(dir: &Path, job: &'static str) -> Systemd {
        let systemd = Systemd::too_busy(dir);
        systemd.runtime.spawn(answer(systemd.connection.clone(), job));
        systemd
    }

    /// Starts one that is there and answers nobody.
    pub fn too_busy(dir: &Path) -> Systemd {
        let (config, socket) = (dir.join("bus.conf"), dir.join("bus"));
        let address = format!("unix:path={}", socket.display());
        let text = format!(
            "<busconfig><listen>{address}</listen><auth>EXTERNAL</auth><policy context=\"default\">\
             <allow send_destination=\"*\" eavesdrop=\"true\"/><allow eavesdrop=\"true\"/><allow own=\"*\"/>\
             </policy></busconfig>"
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg("--nofork").arg(format!("--config-file={}", config.display())).stderr(Stdio::null());
        let bus = command.spawn().expect("dbus-daemon is installed");
        // It is there a moment before anybody listens on it.
        while UnixStream::connect(&socket).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let connection = runtime.block_on(async {
            let connection = connection::Builder::address(address.as_str()).build().await.unwrap();
            connection.request_name("org.freedesktop.systemd1").await.unwrap();
            connection
        });
        Systemd { bus, runtime, connection, address }
    }

    /// For `DBUS_SYSTEM_BUS_ADDRESS`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.bus.kill();
        let _ = self.bus.wait();
    }
}

async fn answer(connection: Connection, job: &'static str) {
    let mut calls = MessageStream::from(&connection);
    let it = || ObjectPath::try_from(PATH).unwrap();
    while let Some(Ok(call)) = calls.next().await {
        let header = call.header();
        let answered = match header.member().map(zbus::names::MemberName::as_str) {
            Some("GetUnit") => connection.reply(&header, &it()).await,
            Some("GetAll") => {
                let mut all: HashMap<&str, Variant<'_>> = HashMap::new();
                all.insert("Job", Variant::from((7_u32, it())));
                all.insert("JobType", Variant::from(job));
                connection.reply(&header, &all).await
            }
            _ => continue,
        };
        answered.unwrap();
    }
}
