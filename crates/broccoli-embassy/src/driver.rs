//! The main loop of a node: feeds the state machine with everything that is ready, then drains it.
//!
//! ```text
//!   loop {
//!       drain: send packets, do actions, run tasks, for a limited time
//!       wait:  for the link or a timer; not at all if there is more to do
//!       feed:  what arrived, and everything else that is ready
//!   }
//! ```
//!
//! It owns the link, the executor and the store. It decides nothing about tasks. Without a connection, the same loop
//! runs while another future connects.
//!
//! Its steps are not inlined: the stack frame of one step must not stay below another one, such as a task.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::future::pending;
use core::pin::Pin;
use core::task::Poll;

use broccoli_core::{Action, Backoff, Config, Event, Execute, Input, Limits, Node, RunId};
use broccoli_proto::message::Failure;
use broccoli_proto::module::{DeployPublic, SignedManifest};
use broccoli_proto::packet::PacketError;
use broccoli_proto::{Epoch, ModuleHash, NodeId};
use broccoli_run::{About, Builtins, Machine, News};
use broccoli_wasm::{Engine, Functions};
use embassy_futures::poll_once;
use embassy_futures::select::{Either, Either3, select, select3};
use embassy_futures::yield_now;
use embassy_net::Stack;
use embassy_net::tcp::TcpSocket;
use embassy_time::{Duration, Instant, Timer};

use crate::device::{self, Device};
use crate::executor::{Executor, LIMITS, Report};
use crate::link::{self, Down, Link, MqttConfig, Packet};
use crate::settings::Settings;
use crate::store::{Flash, Store, StoreError};

/// Tasks that run at the same time. There is one core, and little memory for instances.
const SLOTS: u16 = 1;
/// Most packets that are fed before the state machine is drained.
const PACKETS_MAX: usize = 16;
/// After this time, running tasks let the loop do its other work.
const BURST: Duration = Duration::from_millis(5);
/// How long a node that leaves waits for its running tasks.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// The error if a task may not reboot the chip.
const NO_REBOOT: &str = "this node may not be rebooted by tasks: its settings lack reboot=yes";
/// Buffers of the socket in each direction, in bytes: half a packet. The rest waits at the sender or in the network
/// stack.
const SOCKET_BYTES: usize = 2_048;
/// Most memory that a module needs for each byte of its code, without the operand stack. Measured: up to 3.1 while it
/// is compiled and tested, 2.9 afterwards.
const HEAP_PER_BYTE: usize = 4;
/// The same for an instance of a loaded module. Measured: 1.4, including the stack.
const HEAP_PER_BYTE_INSTANCE: usize = 1;

/// Why a node ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to leave, has finished its tasks, and has sent its goodbye.
    Drained,
    /// A task asked for a reboot, and may do so. The node has left as above. The firmware must now reset the chip.
    Reboot,
    /// A node with the same name started earlier.
    NameTaken,
}

/// Runs a node until it leaves the cluster, or another node has the same name.
pub async fn run<F: Flash>(settings: Settings, device: Device, flash: F, stack: Stack<'_>) -> End {
    let (mut rx, mut tx) = (alloc::vec![0; SOCKET_BYTES], alloc::vec![0; SOCKET_BYTES]);
    let config = link_config(&settings, &device);
    let deploy_public = settings.deploy_public;
    let mut driver = Driver::new(settings, device, flash);
    driver.find_modules(&deploy_public);
    let mut reconnect = Backoff::RECONNECT;
    loop {
        let mut death = Vec::new();
        driver.node.write_will(&mut death);
        let socket = TcpSocket::new(stack, &mut rx, &mut tx);
        // Boxed, and called by address: while the node runs, this needs no memory, also not on the stack.
        let open: Pin<Box<dyn Future<Output = _>>> = Box::pin(Link::open(stack, socket, &config, &death));
        let down = match select(open, driver.run_offline()).await {
            Either::First(Ok(mut link)) => {
                reconnect.reset();
                match driver.run_online(&mut link).await {
                    Ok(end) => {
                        link.disconnect().await;
                        return end;
                    }
                    Err(down) => {
                        (driver.device.connected)(false);
                        driver.feed(Input::Disconnected);
                        down
                    }
                }
            }
            Either::First(Err(down)) => down,
            Either::Second(end) => return end,
        };
        let pause = reconnect.pause();
        log::warn!("{down}; next try in {} ms", pause.as_millis() as u64);
        if let Either::Second(end) =
            select(Timer::after(Duration::from_micros(pause.as_micros() as u64)), driver.run_offline()).await
        {
            return end;
        }
    }
}

fn link_config(settings: &Settings, device: &Device) -> MqttConfig {
    MqttConfig {
        host: settings.host.clone(),
        port: settings.port,
        client_id: format!("{}-{}", settings.name, Epoch(device.epoch)),
        credentials: settings.credentials.clone(),
        cluster: settings.cluster,
        name: settings.name,
        packet_bytes_max: Limits::chip().packet_bytes_max,
    }
}

struct Driver<F> {
    node: Node,
    name: NodeId,
    executor: Executor,
    store: Store<F>,
    engine: Engine,
    device: Device,
    /// Free memory at the start, in bytes. No module can have more.
    heap_bytes_max: usize,
    /// Modules that wait until a run frees its memory.
    installs: Vec<SignedManifest>,
    /// When a node that leaves hands back its running tasks.
    hand_back_at: Option<Instant>,
    end: Option<End>,
    /// A task has asked for a reboot.
    reboots: bool,
    /// The reports of the last slice.
    reports: Vec<Report>,
    foreign_key_told: bool,
}

impl<F: Flash> Driver<F> {
    /// Boxed, and not inlined: its stack frame must not stay on the stack.
    #[inline(never)]
    fn new(settings: Settings, device: Device, flash: F) -> Box<Driver<F>> {
        let limits = Limits::chip();
        let deploy_public = settings.deploy_public;
        let features = broccoli_run::features(&settings.features, device.capabilities);
        let machine = Machine { now_us, unix_ms: device.unix_ms };
        let about = About {
            name: settings.name.as_str(),
            slots: SLOTS,
            labels: &features,
            board: device.board_kind,
            os: "none",
            arch: device::ARCH,
            version: env!("CARGO_PKG_VERSION"),
            reboot: if settings.reboots { Ok(()) } else { Err(NO_REBOOT) },
        };
        let builtins = Builtins::new(about, machine);
        let config = Config {
            name: settings.name,
            keys: alloc::vec![settings.key],
            deploy_public,
            slots: SLOTS,
            features,
            natives: broccoli_run::builtin_modules().into(),
            resident: settings.resident,
            durable: false,
            holds_code: true,
            watches: false,
            version: env!("CARGO_PKG_VERSION").into(),
            timing: link::TIMING,
            limits,
        };
        let heap_bytes_max = (device.memory)().free;
        let node = Node::new(config, Epoch(device.epoch), device.seed, now());
        let mut driver = Box::new(Driver {
            node,
            name: settings.name,
            executor: Executor::new(limits.result_bytes_max as usize, &device, machine, builtins),
            store: Store::new(flash, LIMITS.module_bytes_max as u32),
            engine: Engine::new(LIMITS),
            device,
            heap_bytes_max,
            installs: Vec::new(),
            hand_back_at: None,
            end: None,
            reboots: false,
            reports: Vec::new(),
            foreign_key_told: false,
        });
        driver.tell_time();
        driver
    }

    /// Runs on a connection until it is lost, or the node has ended.
    async fn run_online(&mut self, link: &mut Link<'_>) -> Result<End, Down> {
        self.feed(Input::PacketLimit(link.packet_bytes_max()));
        self.feed(Input::Connected);
        (self.device.connected)(true);
        let memory = (self.device.memory)();
        log::info!("ready  {}; heap: {memory}", self.name);
        loop {
            let is_busy = self.drain(link).await?;
            if let Some(end) = self.end {
                return Ok(end);
            }
            let due = self.due().min(link.check_at());
            // The network stack only runs while this waits, even if it is very short.
            match select3(link.header(), Timer::at(due), at_once(is_busy)).await {
                Either3::First(header) => {
                    if let Some(packet) = link.packet(header?).await? {
                        self.on_packet(&packet);
                    }
                    self.take_what_is_ready(link).await?;
                }
                Either3::Second(()) if link.check_at() <= Instant::now() => link.check().await?,
                Either3::Second(()) | Either3::Third(()) => {}
            }
            self.on_time();
        }
    }

    /// Runs without a connection until the node has ended. Cancel-safe.
    async fn run_offline(&mut self) -> End {
        loop {
            let is_busy = self.work();
            self.lose_packets();
            if let Some(end) = self.end {
                return end;
            }
            select(Timer::at(self.due()), at_once(is_busy)).await;
            self.on_time();
        }
    }

    /// When the next work is due if no packet arrives.
    fn due(&self) -> Instant {
        let timer = self.node.poll_timeout().map(|at| Instant::from_micros(at.0));
        let due = [timer, self.executor.due(), self.hand_back_at].into_iter().flatten();
        due.fold(Instant::MAX, Instant::min)
    }

    fn feed(&mut self, input: Input<'_>) {
        self.node.handle_input(now(), input);
    }
}

/// Inputs.
impl<F: Flash> Driver<F> {
    async fn take_what_is_ready(&mut self, link: &mut Link<'_>) -> Result<(), Down> {
        for _ in 0..PACKETS_MAX {
            let Poll::Ready(header) = poll_once(link.header()) else { break };
            if let Some(packet) = link.packet(header?).await? {
                self.on_packet(&packet);
            }
        }
        Ok(())
    }

    #[inline(never)]
    fn on_packet(&mut self, packet: &Packet) {
        match packet.to {
            Some(to) => self.feed(Input::Packet { to, packet: packet.payload() }),
            None => log::warn!("a packet arrived on a topic of another node"),
        }
    }

    #[inline(never)]
    fn on_time(&mut self) {
        if self.hand_back_at.is_some_and(|at| at <= Instant::now()) {
            self.hand_back_at = None;
            self.node.hand_back(now());
        }
        if self.node.wants_wall_clock(now()) {
            self.tell_time();
        }
        self.feed(Input::Timeout);
    }

    fn tell_time(&mut self) {
        if let Some(unix_ms) = (self.device.unix_ms)() {
            self.feed(Input::WallClock { unix_ms });
        }
    }

    fn on_report(&mut self, report: Report) {
        match report {
            Report::Finished(run, outcome) => {
                for manifest in core::mem::take(&mut self.installs) {
                    self.install(manifest);
                }
                self.feed(Input::Executed { run, outcome });
            }
            Report::News(_, News::Reboot) => {
                self.reboots = true;
                self.node.drain(now());
            }
            Report::News(run, News::Logged(text)) => {
                log::info!("task: {text}");
                self.feed(Input::Logged { run, text });
            }
            Report::News(run, News::Progress(done, total)) => self.feed(Input::Progress { run, done, total }),
            Report::Submit(run, canvas) => self.on_task_submit(run, &canvas),
        }
    }

    /// A running task submits a canvas to this node.
    fn on_task_submit(&mut self, run: RunId, canvas: &[u8]) {
        let (answer, why) = self.node.submit_for_task(now(), canvas);
        self.executor.answer(run, answer, &why);
    }
}

/// Outputs.
impl<F: Flash> Driver<F> {
    /// Sends packets and does actions, for a limited time. Returns whether there may be more to do.
    async fn drain(&mut self, link: &mut Link<'_>) -> Result<bool, Down> {
        self.transmit(link).await?;
        let is_busy = self.work();
        self.transmit(link).await?;
        Ok(is_busy)
    }

    /// Without a connection, packets are dropped. The protocol repeats their messages.
    fn lose_packets(&mut self) {
        let mut packet = Vec::new();
        while self.node.poll_transmit(now(), &mut packet).is_some() {}
    }

    async fn transmit(&mut self, link: &mut Link<'_>) -> Result<(), Down> {
        // The buffer is not kept: a running task may need the memory.
        let mut packet = Vec::new();
        while let Some(transmit) = self.node.poll_transmit(now(), &mut packet) {
            link.publish(transmit.to, &packet).await?;
        }
        Ok(())
    }

    /// Does actions and runs tasks, for a limited time. Returns whether there may be more to do.
    fn work(&mut self) -> bool {
        let is_busy = self.work_for_a_burst();
        // Packets need memory, too.
        self.executor.library().spare().clear();
        is_busy
    }

    fn work_for_a_burst(&mut self) -> bool {
        let end = Instant::now() + BURST;
        loop {
            if let Some(action) = self.node.poll_action() {
                self.act(action);
            } else if !self.run_tasks() {
                return false;
            }
            if Instant::now() >= end {
                return true;
            }
        }
    }

    /// Gives a slice to a task. Returns false if there is none.
    #[inline(never)]
    fn run_tasks(&mut self) -> bool {
        let mut reports = core::mem::take(&mut self.reports);
        let ran = self.executor.step(&mut reports);
        for report in reports.drain(..) {
            self.on_report(report);
        }
        self.reports = reports;
        ran
    }

    #[inline(never)]
    fn act(&mut self, action: Action) {
        match action {
            Action::Execute(execute) => self.execute(execute),
            Action::Abort(run) => self.executor.abort(run),
            Action::Reserve(manifest) => self.reserve(manifest),
            Action::StoreChunk { module, index, bytes } => {
                if let Err(error) = self.store.put_chunk(module, index, bytes) {
                    log::error!("cannot store chunk {index} of a module: {error}");
                }
            }
            Action::LoadChunk { module, index, to } => {
                let bytes = self.store.chunk(&module, index);
                self.feed(Input::ChunkLoaded { module, index, to, bytes });
            }
            Action::Install(manifest) => self.install(manifest),
            Action::Remove(module) => {
                self.executor.library().remove(&module);
                if let Err(error) = self.store.remove(&module) {
                    log::error!("cannot remove a module: {error}");
                }
            }
            // Only nodes with a journal get it. This node has none.
            Action::Persist { .. } => {}
            Action::Event(event) => self.on_event(event),
        }
    }

    #[inline(never)]
    fn execute(&mut self, execute: Execute) {
        let (run, module) = (execute.run, execute.function.module);
        let started = self.make_callable(&module).map_err(|reason| Failure::too_small(reason, None));
        if let Err(failure) = started.and_then(|()| self.executor.start(execute)) {
            self.feed(Input::Executed { run, outcome: Err(failure) });
        }
    }

    #[inline(never)]
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Drained => self.end = Some(if self.reboots { End::Reboot } else { End::Drained }),
            Event::NameTaken => {
                log::error!("the name {} is in use by a node that started earlier", self.name);
                self.end = Some(End::NameTaken);
            }
            Event::Draining(_, limit) => {
                log::info!("leaving");
                let limit = limit.and_then(|limit| Duration::try_from(limit).ok()).unwrap_or(DRAIN_MAX);
                self.hand_back_at = Some(Instant::now() + limit);
            }
            Event::Rejected { error: PacketError::CannotOpen, .. } if !self.foreign_key_told => {
                self.foreign_key_told = true;
                log::error!("a packet is sealed with another key: check the key of the cluster in the settings");
            }
            Event::Rejected { error, .. } => log::debug!("a packet was dropped: {error:?}"),
            // For clients. This node has none.
            _ => {}
        }
    }
}

/// Modules.
impl<F: Flash> Driver<F> {
    /// Passes the modules in flash to the state machine.
    #[inline(never)]
    fn find_modules(&mut self, key: &DeployPublic) {
        let Driver { store, node, .. } = self;
        store.find(key, |found| match found {
            Ok(manifest) => {
                log::info!("module {} found in flash", manifest.manifest.name);
                node.handle_input(now(), Input::Installed { manifest, outcome: Ok(()) });
            }
            Err(error) => log::warn!("cannot use a module in flash: {error}"),
        });
    }

    /// A module is about to be pulled: refuses it before it costs anything, or reserves memory and flash for it.
    #[inline(never)]
    fn reserve(&mut self, signed: SignedManifest) {
        let need = self.heap_bytes(signed.manifest.size);
        let free_now = self.make_room(&signed.id, need);
        // The memory of a run will be free.
        let free = if self.executor.is_idle() { free_now } else { self.heap_bytes_max };
        let reserved =
            check_memory(need, free).and_then(|()| self.store.reserve(&signed).map_err(|error| error.to_string()));
        if let Err(reason) = reserved {
            log::warn!("module {} is refused: {reason}", signed.manifest.name);
            self.feed(Input::Installed { manifest: signed, outcome: Err(reason) });
        }
    }

    /// All chunks of a module have arrived.
    #[inline(never)]
    fn install(&mut self, signed: SignedManifest) {
        let need = self.heap_bytes(signed.manifest.size);
        if need > self.make_room(&signed.id, need) && !self.executor.is_idle() {
            // Wait until the run ends and frees its memory.
            self.installs.push(signed);
            return;
        }
        let outcome = self.check(&signed);
        let (name, memory) = (&signed.manifest.name, (self.device.memory)());
        match &outcome {
            Ok(()) => log::info!("module {name} is installed; heap: {memory}"),
            Err(reason) => log::warn!("module {name} is refused: {reason}"),
        }
        self.feed(Input::Installed { manifest: signed, outcome });
    }

    /// Keeps a module if it matches its manifest.
    fn check(&mut self, signed: &SignedManifest) -> Result<(), String> {
        if signed.manifest.is_tombstone() {
            // There is nothing to keep. After a restart, other nodes send it again.
            return Ok(());
        }
        self.store.check(signed).map_err(|error| error.to_string())?;
        self.load(&signed.id, &signed.manifest.functions)?;
        self.store.keep(signed).map_err(|error| error.to_string())
    }

    /// Makes a function of a module callable: loads the module, and checks that there is memory for an instance.
    fn make_callable(&mut self, id: &ModuleHash) -> Result<(), String> {
        if !self.executor.library().has(id) {
            let functions = self.node.functions_of(id).cloned().ok_or_else(|| StoreError::Missing.to_string())?;
            return self.load(id, &functions);
        }
        let Some(code_bytes) = self.store.code_len(id) else { return Ok(()) };
        let need = code_bytes as usize * HEAP_PER_BYTE_INSTANCE + self.engine.limits().stack_bytes_max;
        check_memory(need, self.make_room(id, need))
    }

    /// Loads a module if there is memory for it.
    fn load(&mut self, id: &ModuleHash, functions: &Functions) -> Result<(), String> {
        // Loading needs more memory than anything else.
        self.executor.library().spare().clear();
        let need = self.heap_bytes(self.store.code_len(id).unwrap_or(0));
        check_memory(need, self.make_room(id, need))?;
        let code = self.store.code(id).map_err(|error| error.to_string())?;
        let module = self.engine.load_known(&code, functions).map_err(|error| error.to_string())?;
        self.executor.library().add(*id, module);
        Ok(())
    }

    /// Frees the spare instance if this module needs its memory, then unloads the other modules. They are loaded again
    /// when they are called. Returns the free memory, in bytes.
    fn make_room(&mut self, id: &ModuleHash, need: usize) -> usize {
        if need > (self.device.memory)().free {
            self.executor.library().spare().clear();
        }
        if need > (self.device.memory)().free {
            self.executor.library().remove_others(id);
        }
        (self.device.memory)().free
    }

    /// Memory that is needed to load a module of `code_bytes` bytes and to instantiate it once, in bytes.
    fn heap_bytes(&self, code_bytes: u32) -> usize {
        let copies = usize::from(!self.store.is_mapped());
        code_bytes as usize * (HEAP_PER_BYTE + copies) + self.engine.limits().stack_bytes_max
    }
}

fn check_memory(need: usize, free: usize) -> Result<(), String> {
    if need > free { Err(format!("the module needs about {need} bytes of memory, there are {free}")) } else { Ok(()) }
}

fn now_us() -> u64 {
    Instant::now().as_micros()
}

fn now() -> broccoli_core::Instant {
    broccoli_core::Instant(now_us())
}

/// Ready after the network stack had time to run; never if the node is not busy.
async fn at_once(is_busy: bool) {
    if is_busy { yield_now().await } else { pending().await }
}
