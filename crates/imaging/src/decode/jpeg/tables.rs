//! What markers set between the scans: tables, conditioning, and the band of coefficients that a scan has.

use super::huffman::HuffmanTable;

/// Tables in force, as the markers between the scans set them.
#[derive(Default)]
pub(super) struct Tables {
    pub dc: [Option<HuffmanTable>; 4],
    pub ac: [Option<HuffmanTable>; 4],
    /// In zigzag order.
    pub quantisation: [Option<[u16; 64]>; 4],
    pub restart_interval: usize,
    pub conditioning: Conditioning,
}

impl Tables {
    pub(super) fn read_huffman(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let counts: &[u8; 16] = rest.get(..16)?.try_into().ok()?;
            let total = counts.iter().map(|&count| usize::from(count)).sum::<usize>();
            let table = HuffmanTable::new(counts, rest.get(16..16 + total)?)?;
            let tables = if kind >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(kind & 15))? = Some(table);
            segment = &rest[16 + total..];
        }
        Some(())
    }

    pub(super) fn read_conditioning(&mut self, segment: &[u8]) -> Option<()> {
        for entry in segment.chunks_exact(2) {
            self.conditioning.set(entry[0], entry[1])?;
        }
        Some(())
    }

    pub(super) fn read_quantisation(&mut self, mut segment: &[u8]) -> Option<()> {
        while let [kind, rest @ ..] = segment {
            let wide = kind >> 4 != 0;
            let length = if wide { 128 } else { 64 };
            let values = rest.get(..length)?;
            let mut table = [0u16; 64];
            for (index, step) in table.iter_mut().enumerate() {
                *step = if wide {
                    u16::from_be_bytes([values[2 * index], values[2 * index + 1]])
                } else {
                    u16::from(values[index])
                };
            }
            *self.quantisation.get_mut(usize::from(kind & 15))? = Some(table);
            segment = &rest[length..];
        }
        Some(())
    }
}

/// Spectral selection and successive approximation of a scan of gathered coefficients.
#[derive(Clone, Copy)]
pub(super) struct Band {
    pub first: usize,
    pub last: usize,
    pub refines: bool,
    pub low: u32,
}

/// What a DAC marker sets (F.1.4.4.1.2 and F.1.4.4.2).
pub(super) struct Conditioning {
    /// Lower and upper bound L, U of a small DC difference, by table.
    pub dc: [(u8, u8); 4],
    /// Kx: from where on high frequencies share their magnitude statistics.
    pub ac: [u8; 4],
}

impl Default for Conditioning {
    fn default() -> Self {
        Self {
            dc: [(0, 1); 4],
            ac: [5; 4],
        }
    }
}

impl Conditioning {
    pub(super) fn set(&mut self, table: u8, value: u8) -> Option<()> {
        let number = usize::from(table & 15);
        if table >> 4 == 0 {
            let (low, high) = (value & 15, value >> 4);
            *self.dc.get_mut(number)? = (low, high);
            return (low <= high).then_some(());
        }
        *self.ac.get_mut(number)? = value;
        (table >> 4 == 1).then_some(())
    }
}
