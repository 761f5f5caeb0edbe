//! Execution providers.

use std::fmt;
use std::str::FromStr;

/// Where the network is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Provider {
    /// CUDA where the library has it and it starts, the CPU otherwise.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA or an error.
    Cuda,
    /// TensorRT or an error.
    TensorRt,
}

impl Provider {
    /// Name as settings spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::TensorRt => "tensorrt",
        }
    }
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Auto, Self::Cpu, Self::Cuda, Self::TensorRt]
            .into_iter()
            .find(|provider| provider.name() == name)
            .ok_or_else(|| format!("execution provider {name:?} is not one of auto, cpu, cuda, tensorrt"))
    }
}
