//! What runs next, and with whom.
//!
//! The engine is told what happens ([`Engine::admit`], [`Engine::ran`], [`Engine::died`] …) and says what is to be done
//! ([`Action`]). Every request that was admitted is answered exactly once, unless it is abandoned first.
//!
//! * An interactive request goes before bulk work; bulk work that has waited for a second goes once in between.
//! * Requests of one model and one shape run together: on the CPU as many as fill the free lanes evenly, on a device as
//!   many as wait. A device that is idle starts at once; a further batch is kept back behind the one that runs until it
//!   is full, or its oldest has waited for [`Limits::wait`]: whoever is alone never waits for others.
//! * When the encoder's process dies, what it was at is put back, and each of it runs alone then, so that the request
//!   that kills it shows itself: the second time it is answered with [`Fault::Crashed`], and the others are answered.
//! * A model that is not loaded is loaded; others, least recently used first, are given up for it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use crate::model::ModelKey;

/// A request's number, the supervisor's own: its slot.
pub type Ticket = usize;
/// Numbers runs from 1.
pub type RunId = u64;

/// Bulk work that has waited for so long goes before interactive requests, one run at a time.
const AGED: Duration = Duration::from_secs(1);
/// Deaths during a request, alone the last time, after which it is given up.
const MOST_DEATHS: u32 = 2;
/// Room that a model needs while it is not known how much it takes: this many times its weights.
const GUESS: u64 = 4;
/// How much longer than a run a model may take to be loaded.
const LOAD_PATIENCE: u32 = 4;

/// Settings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most images in a run on a device.
    pub batch: usize,
    /// Most images in a run on one thread of the CPU.
    pub cpu_batch: usize,
    /// Longest that a batch for a busy device waits to be filled.
    pub wait: Duration,
    /// Longest that a run may take.
    pub timeout: Duration,
    /// Bytes that models may take.
    pub model_memory: u64,
    /// Bytes of the memory in which a run's input travels.
    pub region: usize,
}

/// What a session asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// With which model.
    pub model: ModelKey,
    /// Shape of the tensor, without the batch's dimension.
    pub shape: [usize; 3],
    /// Its bytes.
    pub bytes: usize,
    /// Whether nobody waits for this one image.
    pub bulk: bool,
    /// When the session asked.
    pub arrived: Duration,
}

/// Why there is no descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The service does not have this model: the session is to bring it.
    UnknownModel,
    /// The encoder's process died at it, twice.
    Crashed(String),
    /// The run took longer than [`Limits::timeout`].
    TimedOut,
    /// No encoder's process could be had for that long.
    Unavailable(String),
    /// What the encoder said: a message, a hint, and whether memory was short.
    Failed {
        /// What is wrong.
        message: String,
        /// What to do.
        hint: String,
        /// Whether memory is what it lacks.
        memory: bool,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The run's raw output, at this place of it.
    Output {
        /// Where the run's input lay; its output lies in the part of the same number.
        region: usize,
        /// The request's place in it.
        place: usize,
        /// From arrival to the run's start.
        waited: Duration,
        /// From the run's start to its end.
        ran: Duration,
    },
    /// The model that was brought is loaded.
    ModelLoaded,
    /// None.
    Fault(Fault),
}

/// What is to be done now, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Copy these requests' tensors to a region, one after the other, and send the run to the encoder.
    Run {
        /// Its number.
        run: RunId,
        /// Which part of the memory for inputs.
        region: usize,
        /// The model.
        model: ModelKey,
        /// Of each image.
        shape: [usize; 3],
        /// Whose tensors, in their order.
        tickets: Vec<Ticket>,
    },
    /// Answer a request; the ticket is free then.
    Answer(Ticket, Answer),
    /// Send a model that the supervisor holds to the encoder.
    Load(ModelKey),
    /// Tell the encoder that a model is not needed any more.
    Unload(ModelKey),
    /// Forget a model that the supervisor holds.
    Forget(ModelKey),
    /// Kill the encoder's process; [`Engine::died`] follows. Why.
    Kill(String),
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    request: Request,
    deaths: u32,
}

#[derive(Debug)]
struct Run {
    requests: Vec<Waiting>,
    region: usize,
    started: Duration,
    timed_out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Stored,
    Loading { since: Duration },
    Loaded { on_device: bool },
}

#[derive(Debug)]
struct Model {
    state: Held,
    bytes: u64,
    /// Whether the supervisor can always make it anew, such as the built-in one.
    permanent: bool,
    used: Duration,
    deaths: u32,
    /// Who waits for it to be loaded, having brought it.
    bringers: Vec<Ticket>,
}

/// See the module.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    /// Threads that run networks; 0 while there is no encoder.
    lanes: usize,
    regions: usize,
    free_regions: Vec<usize>,
    interactive: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
    running: BTreeMap<RunId, Run>,
    models: BTreeMap<ModelKey, Model>,
    next_run: RunId,
    aged_last: bool,
    down_since: Duration,
    trouble: String,
}

impl Engine {
    /// With room for so many runs' inputs at a time. No encoder is there yet.
    pub fn new(limits: Limits, regions: usize, now: Duration) -> Self {
        Self {
            limits,
            lanes: 0,
            regions,
            free_regions: (0..regions).rev().collect(),
            interactive: VecDeque::new(),
            bulk: VecDeque::new(),
            running: BTreeMap::new(),
            models: BTreeMap::new(),
            next_run: 1,
            aged_last: false,
            down_since: now,
            trouble: "it is being started".to_owned(),
        }
    }

    /// Other settings from now on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.interactive.len() + self.bulk.len()
    }

    /// Runs at the encoder.
    pub fn running(&self) -> usize {
        self.running.len()
    }

    /// The models that are loaded, with their bytes.
    pub fn loaded(&self) -> impl Iterator<Item = (ModelKey, u64)> + '_ {
        let loaded = |model: &Model| matches!(model.state, Held::Loaded { .. });
        self.models
            .iter()
            .filter(move |(_, model)| loaded(model))
            .map(|(key, model)| (*key, model.bytes))
    }

    /// The supervisor holds a model that it can always make anew.
    pub fn hold_permanent(&mut self, key: ModelKey, weights: u64, now: Duration) {
        self.hold(key, weights, true, now);
    }

    fn hold(&mut self, key: ModelKey, weights: u64, permanent: bool, now: Duration) {
        self.models.entry(key).or_insert(Model {
            state: Held::Stored,
            bytes: weights.saturating_mul(GUESS),
            permanent,
            used: now,
            deaths: 0,
            bringers: Vec::new(),
        });
    }

    /// Whether the supervisor holds this model.
    pub fn holds(&self, key: ModelKey) -> bool {
        self.models.contains_key(&key)
    }

    /// A session has brought a model, which the supervisor holds from now on, and waits for it to be loaded.
    pub fn brought(&mut self, ticket: Ticket, key: ModelKey, weights: u64, now: Duration) -> Vec<Action> {
        self.hold(key, weights, false, now);
        let mut actions = Vec::new();
        let Some(model) = self.models.get_mut(&key) else {
            return actions;
        };
        model.used = now;
        if let Held::Loaded { .. } = model.state {
            actions.push(Action::Answer(ticket, Answer::ModelLoaded));
        } else {
            model.bringers.push(ticket);
            self.load(key, now, &mut actions);
        }
        actions
    }

    /// A request has come.
    pub fn admit(&mut self, ticket: Ticket, request: Request, now: Duration) -> Vec<Action> {
        if !self.models.contains_key(&request.model) {
            return vec![Action::Answer(ticket, Answer::Fault(Fault::UnknownModel))];
        }
        if request.bytes == 0 || request.bytes > self.limits.region {
            let fault = Fault::Failed {
                message: format!(
                    "a tensor of {} bytes does not fit into the service's memory",
                    request.bytes
                ),
                hint: "Raise copymatch.service_slot_size.".to_owned(),
                memory: false,
            };
            return vec![Action::Answer(ticket, Answer::Fault(fault))];
        }
        let waiting = Waiting {
            ticket,
            request,
            deaths: 0,
        };
        if request.bulk {
            self.bulk.push_back(waiting);
        } else {
            self.interactive.push_back(waiting);
        }
        self.turn(now)
    }

    /// Nobody waits for this request any more. True: it is forgotten, and the ticket is free. False: it
    /// runs, and will be answered.
    pub fn abandon(&mut self, ticket: Ticket) -> bool {
        for queue in [&mut self.interactive, &mut self.bulk] {
            if let Some(at) = queue.iter().position(|waiting| waiting.ticket == ticket) {
                queue.remove(at);
                return true;
            }
        }
        for model in self.models.values_mut() {
            if let Some(at) = model.bringers.iter().position(|&bringer| bringer == ticket) {
                model.bringers.swap_remove(at);
                return true;
            }
        }
        false
    }

    /// Requests that wait, not those that run.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> + '_ {
        let bringers = self.models.values().flat_map(|model| model.bringers.iter().copied());
        let waiting = self.interactive.iter().chain(&self.bulk);
        waiting.map(|waiting| waiting.ticket).chain(bringers)
    }

    /// An encoder's process is there, with so many threads.
    pub fn started(&mut self, lanes: usize, now: Duration) -> Vec<Action> {
        self.lanes = lanes.max(1);
        let mut actions = Vec::new();
        let wanted: Vec<ModelKey> = self
            .models
            .iter()
            .filter(|(_, model)| model.permanent || !model.bringers.is_empty())
            .map(|(key, _)| *key)
            .collect();
        for key in wanted {
            self.load(key, now, &mut actions);
        }
        actions.append(&mut self.turn(now));
        actions
    }

    /// A model is loaded; on a device or on the CPU, taking so many bytes.
    pub fn model_loaded(&mut self, key: ModelKey, on_device: bool, bytes: u64, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(model) = self.models.get_mut(&key) {
            model.state = Held::Loaded { on_device };
            model.bytes = bytes;
            model.deaths = 0;
            model.used = now;
            let answers = model.bringers.drain(..);
            actions.extend(answers.map(|ticket| Action::Answer(ticket, Answer::ModelLoaded)));
        }
        self.evict(key, 0, &mut actions);
        actions.append(&mut self.turn(now));
        actions
    }

    /// A model could not be loaded.
    pub fn model_refused(&mut self, key: ModelKey, fault: &Fault, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        self.give_up(key, fault, &mut actions);
        actions.append(&mut self.turn(now));
        actions
    }

    /// Answers everybody who waits for a model, and forgets it.
    fn give_up(&mut self, key: ModelKey, fault: &Fault, actions: &mut Vec<Action>) {
        let answer = |ticket| Action::Answer(ticket, Answer::Fault(fault.clone()));
        if let Some(model) = self.models.get_mut(&key) {
            actions.extend(model.bringers.drain(..).map(answer));
            model.state = Held::Stored;
            model.deaths = 0;
            if !model.permanent {
                self.models.remove(&key);
                actions.push(Action::Forget(key));
            }
        }
        for queue in [&mut self.interactive, &mut self.bulk] {
            for waiting in std::mem::take(queue) {
                if waiting.request.model == key {
                    actions.push(answer(waiting.ticket));
                } else {
                    queue.push_back(waiting);
                }
            }
        }
    }

    /// A run has ended well. None for a number that is not running.
    pub fn ran(&mut self, run: RunId, now: Duration) -> Vec<Action> {
        let Some(ended) = self.end(run) else { return Vec::new() };
        let (region, ran) = (ended.region, now.saturating_sub(ended.started));
        let mut actions: Vec<Action> = ended
            .requests
            .iter()
            .enumerate()
            .filter(|_| !ended.timed_out)
            .map(|(place, waiting)| {
                let waited = ended.started.saturating_sub(waiting.request.arrived);
                Action::Answer(
                    waiting.ticket,
                    Answer::Output {
                        region,
                        place,
                        waited,
                        ran,
                    },
                )
            })
            .collect();
        actions.append(&mut self.turn(now));
        actions
    }

    /// The encoder reported a failure of a run. Images that ran together are tried one by one.
    pub fn run_failed(&mut self, run: RunId, fault: &Fault, now: Duration) -> Vec<Action> {
        let Some(ended) = self.end(run) else { return Vec::new() };
        let mut actions = Vec::new();
        if ended.requests.len() == 1 || ended.timed_out {
            if !ended.timed_out {
                let answer = Answer::Fault(fault.clone());
                actions.push(Action::Answer(ended.requests[0].ticket, answer));
            }
        } else {
            self.put_back(ended.requests.into_iter().map(|waiting| Waiting {
                deaths: waiting.deaths.max(1),
                ..waiting
            }));
        }
        actions.append(&mut self.turn(now));
        actions
    }

    fn end(&mut self, run: RunId) -> Option<Run> {
        let ended = self.running.remove(&run)?;
        self.free_regions.push(ended.region);
        Some(ended)
    }

    /// To the front of their queues, in their order.
    fn put_back(&mut self, requests: impl DoubleEndedIterator<Item = Waiting>) {
        for waiting in requests.rev() {
            if waiting.request.bulk {
                self.bulk.push_front(waiting);
            } else {
                self.interactive.push_front(waiting);
            }
        }
    }

    /// The encoder's process is gone, or could not be started.
    pub fn died(&mut self, why: &str, now: Duration) -> Vec<Action> {
        if self.lanes > 0 {
            self.down_since = now;
        }
        self.lanes = 0;
        why.clone_into(&mut self.trouble);
        let mut actions = Vec::new();
        let crashed = Fault::Crashed(why.to_owned());
        for (_, run) in std::mem::take(&mut self.running).into_iter().rev() {
            if run.timed_out {
                continue;
            }
            let (given_up, again): (Vec<_>, Vec<_>) = run
                .requests
                .into_iter()
                .map(|waiting| Waiting {
                    deaths: waiting.deaths + 1,
                    ..waiting
                })
                .partition(|waiting| waiting.deaths >= MOST_DEATHS);
            let answer = |waiting: Waiting| Action::Answer(waiting.ticket, Answer::Fault(crashed.clone()));
            actions.extend(given_up.into_iter().map(answer));
            self.put_back(again.into_iter());
        }
        self.free_regions = (0..self.regions).rev().collect();
        let mut deadly = Vec::new();
        for (key, model) in &mut self.models {
            if let Held::Loading { .. } = model.state {
                model.deaths += 1;
                if model.deaths >= MOST_DEATHS {
                    deadly.push(*key);
                }
            }
            model.state = Held::Stored;
        }
        for key in deadly {
            self.give_up(key, &crashed, &mut actions);
        }
        actions
    }

    /// Time has passed: what takes too long ends.
    pub fn tick(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.lanes == 0 {
            if now.saturating_sub(self.down_since) >= self.limits.timeout {
                let late = |waiting: &Waiting| now.saturating_sub(waiting.request.arrived) >= self.limits.timeout;
                let fault = Fault::Unavailable(self.trouble.clone());
                for queue in [&mut self.interactive, &mut self.bulk] {
                    let (given_up, kept): (VecDeque<_>, VecDeque<_>) =
                        std::mem::take(queue).into_iter().partition(|waiting| late(waiting));
                    *queue = kept;
                    let answer = |waiting: Waiting| Action::Answer(waiting.ticket, Answer::Fault(fault.clone()));
                    actions.extend(given_up.into_iter().map(answer));
                }
                for model in self.models.values_mut() {
                    let answer = |ticket| Action::Answer(ticket, Answer::Fault(fault.clone()));
                    actions.extend(model.bringers.drain(..).map(answer));
                }
            }
            return actions;
        }
        let mut hangs = false;
        for run in self.running.values_mut() {
            if !run.timed_out && now.saturating_sub(run.started) >= self.limits.timeout {
                hangs = true;
                run.timed_out = true;
                let answer = |waiting: &Waiting| Action::Answer(waiting.ticket, Answer::Fault(Fault::TimedOut));
                actions.extend(run.requests.iter().map(answer));
            }
        }
        let patience = self.limits.timeout * LOAD_PATIENCE;
        let stuck =
            |model: &&Model| matches!(model.state, Held::Loading { since } if now.saturating_sub(since) >= patience);
        if hangs {
            actions.push(Action::Kill("the network did not answer in time".to_owned()));
        } else if self.models.values().any(|model| stuck(&model)) {
            actions.push(Action::Kill("a model was not loaded in time".to_owned()));
        } else {
            actions.append(&mut self.turn(now));
        }
        actions
    }

    /// When [`Engine::tick`] has something to do at the latest.
    pub fn next_tick(&self, now: Duration) -> Option<Duration> {
        let runs = self.running.values().map(|run| run.started + self.limits.timeout);
        let loads = self.models.values().filter_map(|model| match model.state {
            Held::Loading { since } => Some(since + self.limits.timeout * LOAD_PATIENCE),
            _ => None,
        });
        // A batch that is kept back, and what waits while there is no encoder.
        let fronts = self.interactive.front().into_iter().chain(self.bulk.front());
        let patience = if self.lanes == 0 {
            self.limits.timeout
        } else {
            self.limits.wait
        };
        let waits = fronts
            .map(|waiting| waiting.request.arrived + patience)
            .filter(|&time| time > now || self.lanes == 0);
        runs.chain(loads).chain(waits).min()
    }

    fn load(&mut self, key: ModelKey, now: Duration, actions: &mut Vec<Action>) {
        if self.lanes == 0 {
            return;
        }
        let Some(model) = self.models.get_mut(&key) else { return };
        if model.state != Held::Stored {
            return;
        }
        model.state = Held::Loading { since: now };
        let bytes = model.bytes;
        self.evict(key, bytes, actions);
        actions.push(Action::Load(key));
    }

    /// Gives up models that nobody uses, least recently used first, until the rest and `more` fit.
    fn evict(&mut self, keep: ModelKey, more: u64, actions: &mut Vec<Action>) {
        let in_use: BTreeSet<ModelKey> = self
            .running
            .values()
            .flat_map(|run| &run.requests)
            .chain(&self.interactive)
            .chain(&self.bulk)
            .map(|waiting| waiting.request.model)
            .chain([keep])
            .collect();
        loop {
            let loaded = self
                .models
                .iter()
                .filter(|(_, model)| matches!(model.state, Held::Loaded { .. }));
            let taken: u64 = loaded.clone().map(|(_, model)| model.bytes).sum();
            if taken.saturating_add(more) <= self.limits.model_memory {
                return;
            }
            let idle = loaded.filter(|(key, _)| !in_use.contains(key));
            let Some(key) = idle.min_by_key(|(_, model)| model.used).map(|(key, _)| *key) else {
                return;
            };
            actions.push(Action::Unload(key));
            match self.models.get_mut(&key) {
                Some(model) if model.permanent => model.state = Held::Stored,
                _ => {
                    self.models.remove(&key);
                    actions.push(Action::Forget(key));
                }
            }
        }
    }

    /// Starts what can be started.
    fn turn(&mut self, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.lanes == 0 {
            return actions;
        }
        let unloaded: BTreeSet<ModelKey> = self
            .interactive
            .iter()
            .chain(&self.bulk)
            .map(|waiting| waiting.request.model)
            .filter(|key| self.models.get(key).is_some_and(|model| model.state == Held::Stored))
            .collect();
        for key in unloaded {
            self.load(key, now, &mut actions);
        }
        while let Some(action) = self.start(now) {
            actions.push(action);
        }
        actions
    }

    fn on_device(&self, key: ModelKey) -> Option<bool> {
        match self.models.get(&key)?.state {
            Held::Loaded { on_device } => Some(on_device),
            _ => None,
        }
    }

    /// The first request of a queue that could run.
    fn first(&self, bulk: bool) -> Option<&Waiting> {
        let queue = if bulk { &self.bulk } else { &self.interactive };
        queue
            .iter()
            .find(|waiting| self.on_device(waiting.request.model).is_some())
    }

    fn start(&mut self, now: Duration) -> Option<Action> {
        let suspicious = |waiting: &Waiting| waiting.deaths > 0;
        if self.running.values().flat_map(|run| &run.requests).any(suspicious) {
            return None;
        }
        let (interactive, bulk) = (self.first(false), self.first(true));
        let suspect = [interactive, bulk]
            .into_iter()
            .flatten()
            .find(|waiting| suspicious(waiting));
        let aged = |waiting: &&Waiting| now.saturating_sub(waiting.request.arrived) >= AGED;
        let (lead, aged_now) = match (suspect, interactive, bulk) {
            (Some(suspect), ..) => (suspect, false),
            (None, Some(_), Some(bulk)) if !self.aged_last && aged(&bulk) => (bulk, true),
            (None, Some(interactive), _) => (interactive, false),
            (None, None, bulk) => (bulk?, false),
        };
        let alone = suspicious(lead);
        if alone && !self.running.is_empty() {
            return None;
        }
        let Request {
            model,
            shape,
            bytes,
            arrived,
            ..
        } = lead.request;
        let lead_ticket = lead.ticket;
        let on_device = self.on_device(model)?;
        // A device has one run under way and the next one at hand; a thread has one.
        let most_runs = if on_device { 2 } else { self.lanes };
        let free = most_runs.min(self.regions).saturating_sub(self.running.len());
        if free == 0 {
            return None;
        }
        let alike = |waiting: &&Waiting| {
            waiting.request.model == model && waiting.request.shape == shape && !suspicious(waiting)
        };
        let count = self.interactive.iter().chain(&self.bulk).filter(alike).count();
        let fits = (self.limits.region / bytes).max(1);
        let most = match (alone, on_device) {
            (true, _) => 1,
            (false, true) => self.limits.batch.max(1),
            (false, false) => count.div_ceil(free).clamp(1, self.limits.cpu_batch.max(1)),
        };
        let most = most.min(fits);
        let busy = !self.running.is_empty();
        if on_device && busy && !alone && count < most && now.saturating_sub(arrived) < self.limits.wait {
            return None;
        }
        // The lead goes in any case; then those like it, interactive ones first.
        let mut requests = Vec::with_capacity(most);
        for pass in 0..2 {
            for queue in [&mut self.interactive, &mut self.bulk] {
                let mut at = 0;
                while at < queue.len() && requests.len() < most {
                    let waiting = &queue[at];
                    let is_lead = waiting.ticket == lead_ticket;
                    let chosen = if pass == 0 {
                        is_lead
                    } else {
                        !is_lead && alike(&waiting)
                    };
                    match chosen.then(|| queue.remove(at)).flatten() {
                        Some(waiting) => requests.push(waiting),
                        None => at += 1,
                    }
                }
            }
            if alone {
                break;
            }
        }
        self.aged_last = aged_now;
        let region = self.free_regions.pop()?;
        let run = self.next_run;
        self.next_run += 1;
        let tickets = requests.iter().map(|waiting| waiting.ticket).collect();
        if let Some(model) = self.models.get_mut(&model) {
            model.used = now;
        }
        let started = Run {
            requests,
            region,
            started: now,
            timed_out: false,
        };
        self.running.insert(run, started);
        Some(Action::Run {
            run,
            region,
            model,
            shape,
            tickets,
        })
    }
}
