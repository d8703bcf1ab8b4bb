//! A node in the foreground, as `up` and `node` run it.
//!
//! This module has the settings of the node, its messages to the operator, and its shutdown. On Ctrl-C, SIGTERM,
//! SIGHUP, `broccoli drain` and `sys.reboot` the node finishes its tasks and says goodbye, so that nobody waits for its
//! return. On a second signal it stops at once.

use std::fmt::Display;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use broccoli_node::board::Refusals;
use broccoli_node::mqtt::{DisconnectReason, ServerUrl};
use broccoli_node::name::{LABEL_BYTES_MAX, NODE_NAME_BYTES_MAX, is_label};
use broccoli_node::view::JobView;
use broccoli_node::{Cluster, Event, Limits, NodeEvent, NodeHandle, NodeId, PacketError, RunLimits};
use tokio::process::Command;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout, timeout_at};

use crate::board::{self, BoardChoice};
use crate::commands::drain;
use crate::connect::{self, FOREIGN_KEY};
use crate::exit::Failure;
use crate::signals::Signals;
use crate::{duration, output, size, waits};

/// An older node with the same name has answered within this time.
const TWIN_ANSWERS: Duration = Duration::from_millis(100);
/// How long a node may take to say goodbye.
const GOODBYE_MAX: Duration = Duration::from_secs(2);

/// The capability of a node whose process also runs the MQTT server of the cluster.
pub(crate) const SERVER_LABEL: &str = "mqtt-server";

/// The error texts for tasks that use what this node does not have.
const REFUSALS: Refusals = Refusals {
    board: "this node has no board: see `broccoli node --board`",
    reboot: "this node may not be rebooted by tasks: start it with `broccoli node --allow-reboot`",
};

/// The settings of a node.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NodeOptions {
    /// Name of the node, unique in the cluster; default: the name of this machine
    #[arg(long)]
    pub(crate) name: Option<NodeId>,
    /// Number of tasks that run at the same time; 0 for a node that only holds jobs; default: the number of CPUs
    #[arg(long, value_name = "N", value_parser = crate::number::within(0..=u16::MAX))]
    slots: Option<u16>,
    /// Label (room=kitchen) or capability (led) that jobs can require with .set(on=…); repeatable
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    labels: Vec<String>,
    /// Board with the LED, pins and sensors for tasks: simulated, linux, linux:CHIP (a GPIO character device such as
    /// gpiochip0) or none; default: linux if there is such a device, else none
    #[arg(long, value_name = "BOARD")]
    board: Option<BoardChoice>,
    /// Allow tasks to call sys.reboot: the node finishes its tasks, shuts down, and runs COMMAND; default COMMAND:
    /// reboot
    #[arg(long, value_name = "COMMAND", num_args = 0..=1, require_equals = true, default_missing_value = "reboot")]
    allow_reboot: Option<String>,
    /// Directory for the journal and the deployed modules, so that jobs and modules survive a restart
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Stop a run of a task that uses more fuel than this; one instruction uses about one unit
    #[arg(long, value_name = "UNITS", value_parser = crate::number::within(1..=u64::MAX), default_value_t = RunLimits::default().fuel_max)]
    fuel_limit: u64,
    /// Stop a run of a task that takes longer than this, for example if it loops for ever
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "1h")]
    time_limit: Duration,
    /// Memory for jobs that wait or run, including the results of their tasks; if it is full, clients wait; a job that
    /// alone needs more than this fails
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "512M")]
    queue_memory: usize,
    /// Memory for the results of ended jobs; if it is full, the oldest results are removed, first those that a client
    /// has seen
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "32M")]
    results_memory: usize,
    /// How long to keep the results of ended jobs
    #[arg(long, value_name = "TIME", value_parser = duration::parse, default_value = "24h")]
    keep_results: Duration,
}

/// Checks a label or capability.
pub(crate) fn label(text: &str) -> Result<String, String> {
    let hint = format!("write it as led or room=kitchen: no spaces, no empty part, at most {LABEL_BYTES_MAX} bytes");
    if is_label(text) { Ok(text.to_owned()) } else { Err(hint) }
}

/// Values in transfer take this part of the memory for jobs, in addition to it.
const BLOBS_PART: usize = 4;

impl NodeOptions {
    fn slots(&self) -> u16 {
        let cpus =
            || std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(usize::from(u16::MAX)) as u16);
        self.slots.unwrap_or_else(cpus)
    }

    /// Marks the node as the one whose process runs the MQTT server of the cluster.
    #[cfg(feature = "embedded-server")]
    pub(crate) fn serve(&mut self) {
        self.labels.push(SERVER_LABEL.into());
    }

    fn run_limits(&self) -> RunLimits {
        RunLimits { fuel_max: self.fuel_limit, time_max: self.time_limit }
    }

    fn limits(&self) -> Limits {
        let host = Limits::host();
        Limits {
            queue_bytes_max: self.queue_memory,
            // Copies of arguments and results in transfer.
            blob_bytes_max: host.blob_bytes_max.min(self.queue_memory / BLOBS_PART),
            archive_bytes_max: self.results_memory,
            archive_ms: self.keep_results.as_millis() as u64,
            ..host
        }
    }
}

/// A node that takes jobs of others, until it is told to shut down.
pub(crate) struct Resident {
    node: NodeHandle,
    events: Receiver<NodeEvent>,
    /// The text that people see: its name, its slots and the server.
    title: String,
    server: ServerUrl,
    link_is_down: bool,
    told: Option<DisconnectReason>,
    foreign_key_told: bool,
    cluster: Cluster,
    not_heard_told: bool,
    /// It is shutting down.
    drains: bool,
    /// The command that reboots the machine, if tasks may reboot it.
    reboot_command: Option<String>,
    /// A task has requested a reboot.
    reboots: bool,
}

impl Resident {
    /// Starts the node in the current runtime. `shown` is the address by which others reach its server.
    ///
    /// # Errors
    /// If its settings are not valid.
    pub(crate) fn start(
        options: NodeOptions,
        cluster: Cluster,
        server: ServerUrl,
        shown: &ServerUrl,
    ) -> Result<Resident, Failure> {
        let name = options.name.unwrap_or_else(machine_name);
        let slots = options.slots();
        let builder = NodeHandle::builder().cluster(cluster.clone()).server(server.clone()).name(name).resident(true);
        let builder = builder.holds_code(true).slots(slots).run_limits(options.run_limits()).limits(options.limits());
        let builder = options.labels.into_iter().fold(builder, broccoli_node::Builder::label);
        let builder = builder.board(board::open(options.board)?).allow_reboot(options.allow_reboot.is_some());
        let builder = builder.refusals(REFUSALS);
        let builder = options.data.into_iter().fold(builder, broccoli_node::Builder::data);
        let (mut node, driver) = builder.build().map_err(connect::start_failure)?;
        tokio::spawn(driver.run());
        let events = node.events();
        let title = format!("{name}  {}  {shown}", output::count(slots.into(), "slot"));
        Ok(Resident {
            node,
            events,
            title,
            server,
            link_is_down: false,
            told: None,
            foreign_key_told: false,
            cluster,
            not_heard_told: false,
            drains: false,
            reboot_command: options.allow_reboot,
            reboots: false,
        })
    }

    /// Runs until the node is told to shut down, or `also` ends. When work can be submitted, prints the line `ready`
    /// and the text of `when_ready`.
    ///
    /// # Errors
    /// If the server refuses the node at its start, or its name is taken.
    pub(crate) async fn run(
        mut self,
        when_ready: impl FnOnce() -> Option<String>,
        also: impl Future<Output = ()>,
    ) -> Result<(), Failure> {
        let mut signals = Signals::of_node()?;
        let mut also = pin!(also);
        let lived = tokio::select! {
            lived = self.live(when_ready) => lived,
            () = signals.next() => self.drain(&mut signals, also).await,
            () = also.as_mut() => Ok(()),
        };
        // If this takes too long, the server informs the others with our Will.
        let _ = timeout(GOODBYE_MAX, self.node.leave()).await;
        while let Ok(event) = self.events.try_recv() {
            if let NodeEvent::Storage(text) = event {
                output::log(text);
            }
        }
        match self.reboot_command {
            Some(command) if self.reboots && lived.is_ok() => reboot(&command).await,
            _ => lived,
        }
    }

    async fn live(&mut self, when_ready: impl FnOnce() -> Option<String>) -> Result<(), Failure> {
        self.connect().await?;
        let after = when_ready().map(|line| format!("\n{line}")).unwrap_or_default();
        // The node continues when stdout is closed.
        let _ = output::print(format_args!("ready  {}{after}", self.title));
        while let Some(event) = self.event().await? {
            if let NodeEvent::Cluster(Event::Draining(Some(by), _)) = event {
                self.drains = true;
                let left = self.what_is_left().await;
                output::log(format_args!("draining, requested by {by}{left}"));
            }
            self.tell(&event);
        }
        Ok(())
    }

    /// Finishes the tasks of the node. A second signal stops it at once.
    async fn drain(&mut self, signals: &mut Signals, also: impl Future<Output = ()>) -> Result<(), Failure> {
        self.drains = true;
        self.node.begin_drain();
        let left = self.what_is_left().await;
        if !left.is_empty() {
            output::log(format_args!("draining{left}; a second signal stops the node at once"));
        }
        let finished = async {
            while let Some(event) = self.event().await? {
                self.tell(&event);
            }
            Ok(())
        };
        tokio::select! {
            finished = finished => finished,
            () = signals.next() => Ok(()),
            () = also => Ok(()),
        }
    }

    async fn what_is_left(&self) -> String {
        self.node.view().await.map(|view| drain::what_is_left(&view.load)).unwrap_or_default()
    }

    /// Waits until the node is connected and no other node has its name.
    async fn connect(&mut self) -> Result<(), Failure> {
        loop {
            match self.event().await? {
                None | Some(NodeEvent::Connected) => break,
                Some(NodeEvent::Disconnected(reason @ DisconnectReason::RefusedCredentials)) => {
                    return Err(Failure::unreachable(connect::link_trouble(&self.server, &reason)));
                }
                Some(event) => self.tell(&event),
            }
        }
        self.told = None;
        self.link_is_down = false;
        let end = Instant::now() + TWIN_ANSWERS;
        while let Ok(event) = timeout_at(end, self.event()).await {
            for event in event?.iter() {
                self.tell(event);
            }
        }
        Ok(())
    }

    /// The next event, or `None` when a draining node has left.
    async fn event(&mut self) -> Result<Option<NodeEvent>, Failure> {
        let event = self.events.recv().await;
        match event {
            None if self.drains => Ok(None),
            Some(NodeEvent::Cluster(Event::NameTaken)) | None => Err(Failure::usage(format_args!(
                "another node of this cluster is called {}: choose another name with --name",
                self.node.name()
            ))),
            Some(event) => Ok(Some(event)),
        }
    }

    /// Reports a problem to the operator once, and reports when it is solved.
    fn tell(&mut self, event: &NodeEvent) {
        match event {
            NodeEvent::Disconnected(reason) if self.told.as_ref() != Some(reason) => {
                output::log(format_args!("{}; trying again", connect::link_trouble(&self.server, reason)));
                self.told = Some(reason.clone());
                self.link_is_down = true;
            }
            NodeEvent::Connected if self.link_is_down => {
                output::log("connected again");
                self.told = None;
                self.link_is_down = false;
            }
            NodeEvent::Cluster(Event::Rejected { error: PacketError::CannotOpen, .. }) if !self.foreign_key_told => {
                output::log(FOREIGN_KEY);
                self.foreign_key_told = true;
            }
            NodeEvent::NotHeard if !self.not_heard_told => {
                output::log(connect::not_heard(&self.cluster, &self.server));
                self.not_heard_told = true;
            }
            NodeEvent::PacketLimit(bytes) => output::log(format_args!(
                "the MQTT server silently drops packets of more than {bytes} bytes: this node sends smaller ones; to \
                 send large values faster, raise message_size_limit of Mosquitto"
            )),
            NodeEvent::Cluster(Event::ModuleRefused { by, reason, .. }) if *by == self.node.name() => {
                output::log(format_args!("refused a module: {reason}"));
            }
            NodeEvent::Storage(text) => output::log(text),
            NodeEvent::Cluster(Event::GaveUp(jobs)) => {
                output::log("the time to finish is over: handing back the running tasks");
                for job in jobs {
                    output::log(format_args!(
                        "lost: job {}; with --data DIR, jobs survive a restart of the node",
                        waits::job(&JobView::of(self.node.name(), job.clone()))
                    ));
                }
            }
            NodeEvent::Reboot => {
                self.drains = true;
                self.reboots = true;
                output::log("draining, because a task requested a reboot");
            }
            _ => {}
        }
    }
}

/// Runs the command that reboots the machine.
async fn reboot(command: &str) -> Result<(), Failure> {
    let mut words = command.split_whitespace();
    let failed = |why: &dyn Display| Failure::failed(format_args!("cannot reboot with `{command}`: {why}"));
    let program = words.next().ok_or_else(|| failed(&"the command is empty"))?;
    let status = Command::new(program).args(words).status().await.map_err(|error| failed(&error))?;
    if status.success() { Ok(()) } else { Err(failed(&status)) }
}

/// The name of this machine, as a valid node name.
pub(crate) fn machine_name() -> NodeId {
    node_name(&host_name()).unwrap_or_else(|| "node".parse().expect("letters are a name"))
}

/// The host name of this machine. It can be empty.
pub(crate) fn host_name() -> String {
    let asked = || std::process::Command::new("hostname").output().ok().map(|output| output.stdout);
    let name = std::fs::read("/proc/sys/kernel/hostname").ok().or_else(asked).unwrap_or_default();
    String::from_utf8_lossy(&name).trim().to_owned()
}

/// The first part of a host name, without the characters that a node name must not have.
fn node_name(host: &str) -> Option<NodeId> {
    let first = host.split('.').next().unwrap_or_default();
    let allowed = first.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
    let name: String = allowed.skip_while(|c| *c == '_').take(NODE_NAME_BYTES_MAX).collect();
    name.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_name_gives_a_node_name_or_none() {
        let name = |host: &str| node_name(host).map(String::from);
        assert_eq!(name("raspberrypi.local"), Some("raspberrypi".into()));
        assert_eq!(name("_küche"), Some("kche".into()));
        assert_eq!(name(&"x".repeat(64)), Some("x".repeat(31)));
        assert_eq!(name(""), None);
    }
}
