//! What the encoder's process says, and what the views show of it.

use std::sync::atomic::Ordering;

use service::wire::Report;
use service::{Action, Answer, Fault, ModelKey};

use super::shared::{Standing, now};
use super::supervisor::{FIRST_REST, Supervisor};
use crate::settings;

impl Supervisor {
    pub(super) fn take_reports(&mut self) {
        while let Some(encoder) = &self.encoder {
            match encoder.receive() {
                Ok(None) => return,
                Ok(Some(report)) => self.take_report(report),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => self.lose_encoder("", true),
                Err(error) => self.lose_encoder(&format!("what it says cannot be read: {error}"), true),
            }
        }
    }

    pub(super) fn take_report(&mut self, report: Report) {
        let header = self.shared.header;
        let fault = |message, hint, memory| Fault::Failed { message, hint, memory };
        match report {
            Report::Started => {
                header.standing.store(Standing::Running as u32, Ordering::Release);
                let actions = self.engine.started(settings::service_threads(), now());
                self.apply(actions);
            }
            Report::Loaded {
                model,
                name,
                provider,
                fallback,
                version,
                bytes,
                milliseconds,
            } => {
                pgrx::log!(
                    "copymatch: embedding service: model {name} loaded on {provider} in {milliseconds:.0} ms, {} MB",
                    bytes >> 20
                );
                header.counters.models_loaded.fetch_add(1, Ordering::Relaxed);
                let auto = header.requested.get().as_deref() == Some("auto");
                let fallback = fallback.or_else(|| {
                    (auto && provider == "cpu").then(|| "the installed ONNX Runtime has no CUDA".to_owned())
                });
                if let Some(reason) = &fallback
                    && auto
                    && !std::mem::replace(&mut self.fallback_said, true)
                {
                    pgrx::log!("copymatch.execution_provider is auto: the CPU runs the network ({reason})");
                }
                header.provider.set(&provider);
                header.fallback.set(fallback.as_deref().unwrap_or(""));
                header.version.set(version.as_deref().unwrap_or(""));
                self.name(model, &name, &provider, bytes);
                let actions = self.engine.model_loaded(model, provider != "cpu", bytes, now());
                self.apply(actions);
            }
            Report::DeviceMemory { used, total } => {
                header.device_used.store(used, Ordering::Relaxed);
                header.device_total.store(total, Ordering::Relaxed);
            }
            Report::Refused {
                model,
                message,
                hint,
                memory,
            } => {
                pgrx::warning!("copymatch: embedding service: a model was not loaded: {message}");
                header.trouble.set(&message);
                let actions = self.engine.model_refused(model, &fault(message, hint, memory), now());
                self.apply(actions);
                if memory {
                    // ONNX Runtime may be half started: only another process can start it again.
                    self.lose_encoder("it lacked memory", true);
                }
            }
            Report::Ran { run, values, instead } => {
                if let Some(instead) = instead {
                    pgrx::log!("copymatch: embedding service: {instead}");
                    header.counters.smaller_batches.fetch_add(1, Ordering::Relaxed);
                    header.trouble.set(&instead);
                }
                self.rest = FIRST_REST;
                let actions = self.engine.ran(run, now());
                let images = actions
                    .iter()
                    .filter(|action| matches!(action, Action::Answer(_, Answer::Output { .. })))
                    .count();
                header.counters.batches.fetch_add(1, Ordering::Relaxed);
                header.counters.images.fetch_add(images as u64, Ordering::Relaxed);
                self.apply_outputs(actions, values.checked_div(images).unwrap_or(0));
            }
            Report::Failed {
                run,
                message,
                hint,
                memory,
            } => {
                let actions = self.engine.run_failed(run, &fault(message, hint, memory), now());
                self.apply(actions);
            }
        }
    }

    /// Notes a model for the views.
    pub(super) fn name(&mut self, model: ModelKey, name: &str, provider: &str, bytes: u64) {
        let key = model.to_string();
        let models = &self.shared.header.models;
        let place = models
            .iter()
            .find(|named| named.key.get().as_deref() == Some(&key))
            .or_else(|| models.iter().find(|named| named.bytes.load(Ordering::Relaxed) == 0));
        if let Some(named) = place {
            if named.key.get().as_deref() != Some(&key) {
                named.images.store(0, Ordering::Relaxed);
            }
            named.key.set(&key);
            named.name.set(name);
            named.provider.set(provider);
            named.bytes.store(bytes.max(1), Ordering::Release);
        }
    }

    pub(super) fn unname(&self, model: ModelKey) {
        let key = model.to_string();
        for named in &self.shared.header.models {
            if named.key.get().as_deref() == Some(&key) {
                named.bytes.store(0, Ordering::Release);
            }
        }
    }
}
