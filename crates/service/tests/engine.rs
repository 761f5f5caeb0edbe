//! The engine under random sequences of events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proptest::prelude::*;
use service::{Action, Answer, Engine, Fault, Limits, ModelKey, Request, RunId, Ticket};

const MILLISECOND: Duration = Duration::from_millis(1);
const KEYS: [ModelKey; 3] = [ModelKey([1; 32]), ModelKey([2; 32]), ModelKey([3; 32])];
const REGIONS: usize = 4;

fn limits() -> Limits {
    Limits {
        batch: 8,
        cpu_batch: 2,
        wait: 2 * MILLISECOND,
        timeout: Duration::from_secs(10),
        model_memory: 1000,
        region: 4096,
    }
}

/// A supervisor and an encoder without processes; checks what the engine says.
struct World {
    engine: Engine,
    now: Duration,
    lanes: usize,
    on_device: bool,
    /// Requests that were admitted and not answered.
    open: BTreeMap<Ticket, Request>,
    /// Of those, the ones that nobody waits for.
    abandoned: BTreeSet<Ticket>,
    runs: BTreeMap<RunId, (usize, Vec<Ticket>)>,
    loading: VecDeque<ModelKey>,
    loaded: BTreeSet<ModelKey>,
    answers: BTreeMap<Ticket, Answer>,
    next: Ticket,
    killed: bool,
}

impl World {
    fn new(on_device: bool) -> Self {
        let mut engine = Engine::new(limits(), REGIONS, Duration::ZERO);
        engine.hold_permanent(KEYS[0], 10, Duration::ZERO);
        World {
            engine,
            now: Duration::ZERO,
            lanes: 0,
            on_device,
            open: BTreeMap::new(),
            abandoned: BTreeSet::new(),
            runs: BTreeMap::new(),
            loading: VecDeque::new(),
            loaded: BTreeSet::new(),
            answers: BTreeMap::new(),
            next: 0,
            killed: false,
        }
    }

    fn apply(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Run {
                    run,
                    region,
                    model,
                    shape,
                    tickets,
                } => {
                    assert!(self.lanes > 0, "a run without an encoder");
                    assert!(self.loaded.contains(&model), "a run of a model that is not loaded");
                    assert!(!tickets.is_empty());
                    let most = if self.on_device {
                        limits().batch
                    } else {
                        limits().cpu_batch
                    };
                    assert!(tickets.len() <= most);
                    assert!(
                        self.runs.values().all(|(used, _)| *used != region),
                        "a region is used twice"
                    );
                    let bytes: usize = tickets.iter().map(|ticket| self.open[ticket].bytes).sum();
                    assert!(bytes <= limits().region);
                    for ticket in &tickets {
                        let request = &self.open[ticket];
                        assert_eq!(
                            (request.model, request.shape),
                            (model, shape),
                            "a batch of different kinds"
                        );
                    }
                    self.runs.insert(run, (region, tickets));
                    let most = if self.on_device { 2 } else { self.lanes };
                    assert!(self.runs.len() <= most.min(REGIONS), "too many runs at a time");
                }
                Action::Answer(ticket, answer) => {
                    self.open.remove(&ticket).expect("an answer to nobody, or a second one");
                    self.abandoned.remove(&ticket);
                    self.answers.insert(ticket, answer);
                }
                Action::Load(key) => {
                    assert!(self.lanes > 0 && !self.loaded.contains(&key) && !self.loading.contains(&key));
                    self.loading.push_back(key);
                }
                Action::Unload(key) => {
                    assert!(self.loaded.remove(&key), "unloads what is not loaded");
                    let used = |ticket: &Ticket| self.open.get(ticket).is_some_and(|request| request.model == key);
                    assert!(
                        !self.runs.values().flat_map(|(_, tickets)| tickets).any(used),
                        "unloads what runs"
                    );
                }
                Action::Forget(key) => assert_ne!(key, KEYS[0], "forgets the built-in model"),
                Action::Kill(_) => self.killed = true,
            }
        }
    }

    fn ask(&mut self, key: ModelKey, side: usize, bulk: bool) -> Ticket {
        let ticket = self.next;
        self.next += 1;
        let request = Request {
            model: key,
            shape: [3, side, side],
            bytes: 3 * side * side,
            bulk,
            arrived: self.now,
        };
        self.open.insert(ticket, request);
        let actions = self.engine.admit(ticket, request, self.now);
        self.apply(actions);
        ticket
    }

    fn bring(&mut self, key: ModelKey) {
        let ticket = self.next;
        self.next += 1;
        let request = Request {
            model: key,
            shape: [0; 3],
            bytes: 0,
            bulk: false,
            arrived: self.now,
        };
        self.open.insert(ticket, request);
        let actions = self.engine.brought(ticket, key, 100, self.now);
        self.apply(actions);
    }

    fn start(&mut self) {
        if self.lanes == 0 {
            self.lanes = 2;
            let actions = self.engine.started(2, self.now);
            self.apply(actions);
        }
    }

    fn load_next(&mut self) {
        if let Some(key) = self.loading.pop_front() {
            self.loaded.insert(key);
            let actions = self.engine.model_loaded(key, self.on_device, 400, self.now);
            self.apply(actions);
        }
    }

    fn end_run(&mut self, which: usize, well: bool) {
        let Some(run) = self.runs.keys().nth(which % self.runs.len().max(1)).copied() else {
            return;
        };
        self.runs.remove(&run);
        let fault = Fault::Failed {
            message: "no".into(),
            hint: String::new(),
            memory: true,
        };
        let actions = if well {
            self.engine.ran(run, self.now)
        } else {
            self.engine.run_failed(run, &fault, self.now)
        };
        self.apply(actions);
    }

    fn die(&mut self) {
        self.lanes = 0;
        self.runs.clear();
        self.loaded.clear();
        self.loading.clear();
        self.killed = false;
        let actions = self.engine.died("killed", self.now);
        self.apply(actions);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        let actions = self.engine.tick(self.now);
        self.apply(actions);
        if self.killed {
            self.die();
        }
    }

    fn abandon(&mut self, which: usize) {
        let waiting: Vec<Ticket> = self
            .open
            .keys()
            .filter(|ticket| !self.abandoned.contains(ticket))
            .copied()
            .collect();
        let Some(&ticket) = waiting.get(which % waiting.len().max(1)) else {
            return;
        };
        if self.engine.abandon(ticket) {
            self.open.remove(&ticket);
        } else {
            self.abandoned.insert(ticket);
        }
    }

    /// Lets everything that can end, end.
    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.start();
            self.load_next();
            self.end_run(0, true);
            self.pass(MILLISECOND);
            if self.open.is_empty() {
                return;
            }
        }
        panic!("never answered: {:?}", self.open);
    }
}

#[derive(Debug, Clone)]
enum Event {
    Ask(usize, usize, bool),
    Bring(usize),
    Start,
    LoadNext,
    RefuseNext,
    EndRun(usize, bool),
    Die,
    Pass(u64),
    Abandon(usize),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..3_usize, prop_oneof![Just(8_usize), Just(16)], any::<bool>())
            .prop_map(|(k, s, b)| Event::Ask(k, s, b)),
        1 => (1..3_usize).prop_map(Event::Bring),
        2 => Just(Event::Start),
        3 => Just(Event::LoadNext),
        1 => Just(Event::RefuseNext),
        8 => (any::<usize>(), prop::bool::weighted(0.9)).prop_map(|(w, b)| Event::EndRun(w, b)),
        1 => Just(Event::Die),
        3 => (0..20_000_u64).prop_map(Event::Pass),
        2 => any::<usize>().prop_map(Event::Abandon),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn every_request_is_answered_once_whatever_happens(
        events in prop::collection::vec(event(), 1..120), on_device: bool,
    ) {
        let mut world = World::new(on_device);
        for event in events {
            match event {
                Event::Ask(key, side, bulk) => { world.ask(KEYS[key], side, bulk); }
                Event::Bring(key) => world.bring(KEYS[key]),
                Event::Start => world.start(),
                Event::LoadNext => world.load_next(),
                Event::RefuseNext => if let Some(key) = world.loading.pop_front() {
                    let fault = Fault::Failed { message: "bad".into(), hint: String::new(), memory: false };
                    let actions = world.engine.model_refused(key, &fault, world.now);
                    world.apply(actions);
                },
                Event::EndRun(which, well) => world.end_run(which, well),
                Event::Die => world.die(),
                Event::Pass(milliseconds) => world.pass(Duration::from_millis(milliseconds)),
                Event::Abandon(which) => world.abandon(which),
            }
        }
        world.settle();
        prop_assert_eq!(world.engine.waiting(), 0);
    }
}

fn ready(on_device: bool) -> World {
    let mut world = World::new(on_device);
    world.start();
    world.load_next();
    world
}

#[test]
fn bulk_work_never_holds_up_an_interactive_request_for_longer_than_a_run() {
    let mut world = ready(false);
    for _ in 0..50 {
        world.ask(KEYS[0], 8, true);
    }
    let asked = world.ask(KEYS[0], 8, false);
    world.end_run(0, true);
    assert!(
        world.runs.values().any(|(_, tickets)| tickets.contains(&asked)),
        "it is not the next to run"
    );
}

#[test]
fn bulk_work_goes_on_beside_interactive_requests_without_end() {
    let mut world = ready(false);
    let bulk = world.ask(KEYS[0], 8, true);
    for _ in 0..8 {
        world.ask(KEYS[0], 16, false);
    }
    world.abandon(usize::MAX);
    let other = world.ask(KEYS[0], 8, true);
    for _ in 0..2000 {
        world.ask(KEYS[0], 16, false);
        world.pass(MILLISECOND);
        world.end_run(0, true);
    }
    assert!(world.answers.contains_key(&bulk) && world.answers.contains_key(&other));
}

#[test]
fn a_request_that_kills_the_encoder_is_given_up_and_the_others_are_answered() {
    let mut world = ready(false);
    let deadly = world.ask(KEYS[0], 8, false);
    let innocent: Vec<Ticket> = (0..5).map(|_| world.ask(KEYS[0], 8, false)).collect();
    let mut deaths = 0;
    while !world.open.is_empty() {
        world.start();
        world.load_next();
        if world.runs.values().any(|(_, tickets)| tickets.contains(&deadly)) {
            world.die();
            deaths += 1;
        } else {
            world.end_run(0, true);
        }
        world.pass(MILLISECOND);
    }
    assert_eq!(deaths, 2);
    assert!(matches!(world.answers[&deadly], Answer::Fault(Fault::Crashed(_))));
    for ticket in innocent {
        assert!(matches!(world.answers[&ticket], Answer::Output { .. }));
    }
}

#[test]
fn a_device_that_is_idle_waits_for_nobody_and_a_busy_one_for_a_full_batch_or_the_longest_wait() {
    let mut world = ready(true);
    world.ask(KEYS[0], 8, false);
    assert_eq!(world.runs.len(), 1);
    world.ask(KEYS[0], 8, false);
    assert_eq!(world.runs.len(), 1, "kept back behind the one that runs");
    world.pass(limits().wait);
    assert_eq!(world.runs.len(), 2);
    for _ in 0..8 {
        world.ask(KEYS[0], 8, false);
    }
    world.end_run(0, true);
    assert_eq!(
        world.runs.values().map(|(_, tickets)| tickets.len()).max(),
        Some(8),
        "a full batch waits no longer"
    );
}

#[test]
fn a_hung_run_ends_after_the_timeout_and_nobody_waits_for_ever_without_an_encoder() {
    let mut world = ready(false);
    let hung = world.ask(KEYS[0], 8, false);
    world.pass(limits().timeout);
    assert_eq!(world.answers[&hung], Answer::Fault(Fault::TimedOut));
    assert_eq!(world.lanes, 0, "the process is killed");
    let unserved = world.ask(KEYS[0], 8, false);
    world.pass(limits().timeout);
    assert!(matches!(world.answers[&unserved], Answer::Fault(Fault::Unavailable(_))));
}

#[test]
fn models_are_given_up_least_recently_used_first_and_never_while_they_run() {
    let mut world = ready(false);
    world.bring(KEYS[1]);
    world.load_next();
    // 400 bytes each, 1,000 in all: the third one displaces the second, for the first is running.
    world.ask(KEYS[0], 8, false);
    world.pass(MILLISECOND);
    world.bring(KEYS[2]);
    world.load_next();
    assert_eq!(world.loaded, BTreeSet::from([KEYS[0], KEYS[2]]));
    let again = world.ask(KEYS[1], 8, false);
    assert_eq!(world.answers[&again], Answer::Fault(Fault::UnknownModel));
}
