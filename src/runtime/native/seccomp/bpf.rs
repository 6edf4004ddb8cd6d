//! Instructions of the classic BPF machine, as far as seccomp uses them (`linux/filter.h`, `linux/seccomp.h`).

/// One instruction: the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Insn {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

/// `BPF_LD | BPF_W | BPF_ABS`: a word of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
/// `BPF_LD | BPF_W | BPF_IMM`: a constant.
pub(super) const LOAD_CONSTANT: u16 = 0x00;
/// `BPF_ALU | BPF_AND | BPF_K`.
pub(super) const AND: u16 = 0x54;
/// `BPF_JMP | BPF_JA`.
pub(super) const JUMP: u16 = 0x05;
/// `BPF_JMP | BPF_JEQ | BPF_K`.
pub(super) const JUMP_EQ: u16 = 0x15;
/// `BPF_JMP | BPF_JGT | BPF_K`.
pub(super) const JUMP_GT: u16 = 0x25;
/// `BPF_JMP | BPF_JGE | BPF_K`.
pub(super) const JUMP_GE: u16 = 0x35;
/// `BPF_RET | BPF_K`.
pub(super) const RETURN: u16 = 0x06;

/// Offset of the call's number in `struct seccomp_data`.
pub(super) const NUMBER: u32 = 0;
/// Offset of the architecture.
pub(super) const ARCH: u32 = 4;
/// Offset of the first argument; each has eight bytes.
const ARGUMENTS: u32 = 16;

/// Offset of an argument's low word.
pub(super) const fn low_word(index: u32) -> u32 {
    ARGUMENTS + 8 * index + if cfg!(target_endian = "big") { 4 } else { 0 }
}

/// Offset of an argument's high word.
pub(super) const fn high_word(index: u32) -> u32 {
    ARGUMENTS + 8 * index + if cfg!(target_endian = "big") { 0 } else { 4 }
}

/// An instruction that does not jump.
pub(super) const fn plain(code: u16, k: u32) -> Insn {
    Insn { code, jt: 0, jf: 0, k }
}

/// A conditional jump; both distances count from the next instruction.
pub(super) const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Insn {
    Insn { code, jt, jf, k }
}

/// The bytes of an array of `struct sock_filter`, in the host's byte order.
pub(super) fn bytes(program: &[Insn]) -> Vec<u8> {
    let mut out = Vec::with_capacity(program.len() * 8);
    for insn in program {
        out.extend_from_slice(&insn.code.to_ne_bytes());
        out.extend_from_slice(&[insn.jt, insn.jf]);
        out.extend_from_slice(&insn.k.to_ne_bytes());
    }
    out
}

/// The machine, so that tests can run what is compiled. `data` is a `struct seccomp_data`.
#[cfg(test)]
pub(super) fn run(program: &[u8], data: &[u8; 64]) -> Result<u32, String> {
    let insns: Vec<Insn> = program.chunks_exact(8).map(decode).collect();
    let (mut at, mut accumulator) = (0usize, 0u32);
    loop {
        let insn = insns.get(at).ok_or("ran off the end")?;
        at += 1;
        let jump = |taken: bool| usize::from(if taken { insn.jt } else { insn.jf });
        match insn.code {
            LOAD => {
                let offset = insn.k as usize;
                let word = data
                    .get(offset..offset + 4)
                    .filter(|_| offset.is_multiple_of(4))
                    .ok_or("bad load")?;
                accumulator = u32::from_ne_bytes(word.try_into().map_err(|_| "bad load")?);
            }
            LOAD_CONSTANT => accumulator = insn.k,
            AND => accumulator &= insn.k,
            JUMP => at += insn.k as usize,
            JUMP_EQ => at += jump(accumulator == insn.k),
            JUMP_GT => at += jump(accumulator > insn.k),
            JUMP_GE => at += jump(accumulator >= insn.k),
            RETURN => return Ok(insn.k),
            code => return Err(format!("unknown code {code:#x}")),
        }
    }
}

#[cfg(test)]
fn decode(raw: &[u8]) -> Insn {
    let code = u16::from_ne_bytes([raw[0], raw[1]]);
    Insn {
        code,
        jt: raw[2],
        jf: raw[3],
        k: u32::from_ne_bytes([raw[4], raw[5], raw[6], raw[7]]),
    }
}
