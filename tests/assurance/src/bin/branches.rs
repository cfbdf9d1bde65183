//! Checks the machine code of the comparison of secrets, and of their conversion from and to hex.
//!
//! `branches PROGRAM` disassembles the program `entry_points`.
//!
//! - In the functions of `FOLLOWED` it follows the data. Whatever they read through a pointer is secret, and so is what
//!   is computed from it. No conditional jump, no address and no division may depend on it, except as often as the list
//!   says.
//! - Wherever `ct_eq` is inlined, it finds the instructions by their debug information. Only its result may decide a
//!   jump, and the only function that it calls is the barrier of `subtle`.
//!
//! The functions whose names begin with `control_` have a branch and an address that depend on a secret. They must be
//! found.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    process::ExitCode,
};

use dekseal_assurance::disassembly::{Function, Instruction, frames, functions};

/// Each function, and the number of its jumps and addresses that depend on what it reads.
const FOLLOWED: [(&str, usize); 3] = [
    ("<dekseal::dek::Dek as core::cmp::PartialEq>::eq", 0),
    ("base16ct::upper::encode_str", 0),
    // At the end: whether all characters are hex digits.
    ("base16ct::decode_inner", 1),
];

/// Functions in which at least one is found.
const CONTROLS: [&str; 2] = ["entry_points::control_compare", "entry_points::control_table"];

/// The functions that compare secrets, by the ends of their names.
const COMPARED: [(&str, &str); 5] = [
    ("CmkVersion::open_beside", "the salt of a blob"),
    ("::check_commitment", "the commitment of a payload"),
    ("Contents::verify", "the MAC of a keyring document"),
    ("Dek::check", "the halves of a DEK, which a stuck generator makes equal"),
    ("checked_dek", "the digest of a DEK in a request"),
];

const BARRIER: &str = "subtle::black_box";
const COMPARISON: &str = "dekseal::secret::ct_eq";
/// The innermost function around the jump that the result of a comparison decides.
const RESULT: &str = "core::convert::From<subtle::Choice> for bool>::from";

/// What depends on a secret before an instruction: registers, the flags, and places on the stack.
#[derive(Clone, Default, PartialEq)]
struct Secrets {
    registers: u64,
    stack: BTreeSet<String>,
}

const FLAGS: u64 = 1 << 63;
/// `rax`, `rcx`, `rdx`, `rsi`, `rdi` and `r8` to `r11`: a call may change them.
const CHANGED_BY_CALLS: u64 = 0b1111_0011_0111;
/// The first vector register.
const VECTORS: usize = 16;

/// The bit of a register. Its parts count as the whole.
fn register(name: &str) -> Option<u64> {
    const NAMES: [[&str; 2]; 8] = [
        ["ax", "al"],
        ["cx", "cl"],
        ["dx", "dl"],
        ["bx", "bl"],
        ["si", "sil"],
        ["di", "dil"],
        ["bp", "bpl"],
        ["sp", "spl"],
    ];
    // `rax` is 0, `rcx` 1, `rdx` 2, `rbx` 3, `rsi` 4, `rdi` 5, `rbp` 6, `rsp` 7.
    let number = |text: &str| text.parse::<usize>().ok().filter(|number| *number < 32);
    let vector = ["xmm", "ymm", "zmm"].iter().find_map(|kind| name.strip_prefix(kind));
    let bit = match (vector, name.strip_prefix('r')) {
        (Some(rest), _) => VECTORS + number(rest)?,
        (None, Some(rest)) if rest.starts_with(|first: char| first.is_ascii_digit()) => {
            number(rest.trim_end_matches(['d', 'w', 'b']))?
        }
        _ => {
            let high = name
                .strip_suffix('h')
                .filter(|first| first.len() == 1)
                .map(|first| format!("{first}l"));
            let short = high.as_deref().unwrap_or(name.trim_start_matches(['r', 'e']));
            NAMES.iter().position(|names| names.contains(&short))?
        }
    };
    Some(1 << bit)
}

/// All registers that a text names.
fn registers(text: &str) -> u64 {
    let names = text.split('%').skip(1);
    let name = |text: &str| {
        text.split(|of: char| !of.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    names
        .filter_map(|text| register(&name(text)))
        .fold(0, |all, bit| all | bit)
}

/// The operands, which commas separate outside of parentheses.
fn operands(text: &str) -> Vec<&str> {
    let mut depth = 0;
    let separated = text.split(|of: char| {
        depth += i32::from(of == '(') - i32::from(of == ')');
        of == ',' && depth == 0
    });
    separated.map(str::trim).filter(|operand| !operand.is_empty()).collect()
}

impl Secrets {
    fn any(&self, registers: u64) -> bool {
        self.registers & registers != 0
    }

    fn set(&mut self, registers: u64, secret: bool) {
        if secret {
            self.registers |= registers;
        } else {
            self.registers &= !registers;
        }
    }

    /// Whether the value of an operand is secret.
    fn reads(&self, operand: &str) -> bool {
        match operand.split_once('(') {
            None => self.any(registers(operand)),
            // A constant.
            Some((_, address)) if address.starts_with("%rip") => false,
            Some((_, address)) if address.starts_with("%rsp") || address.starts_with("%rbp") => {
                self.stack.contains(operand)
            }
            Some(_) => true,
        }
    }

    fn writes(&mut self, operand: &str, secret: bool) {
        match operand.split_once('(') {
            None => self.set(registers(operand), secret),
            Some((_, address)) if address.starts_with("%rsp") || address.starts_with("%rbp") => {
                if secret {
                    self.stack.insert(operand.to_owned());
                } else {
                    self.stack.remove(operand);
                }
            }
            Some(_) => {}
        }
    }

    fn join(&mut self, other: &Self) -> bool {
        let before = self.clone();
        self.registers |= other.registers;
        self.stack.extend(other.stack.iter().cloned());
        *self != before
    }

    /// Goes over an instruction. Returns what must not depend on a secret, but does.
    fn step(&mut self, instruction: &Instruction, callee: Option<&str>) -> Option<&'static str> {
        let (mnemonic, rest) = instruction.text.split_once(' ').unwrap_or((&instruction.text, ""));
        let operands = operands(rest);
        let addresses = operands
            .iter()
            .filter_map(|operand| Some(registers(operand.split_once('(')?.1)));
        let address = addresses.fold(0, |all, registers| all | registers);
        let found = (mnemonic != "lea" && mnemonic != "nopw" && self.any(address)).then_some("an address");
        let last = operands.last().copied().unwrap_or_default();
        let reads = operands.iter().any(|operand| self.reads(operand));
        let all_but_last = operands.iter().rev().skip(1).any(|operand| self.reads(operand));
        let vector = registers(last) >> VECTORS != 0;

        match mnemonic {
            "call" => {
                let secret = self.any(register("rdi").unwrap_or_default());
                self.set(CHANGED_BY_CALLS | FLAGS, false);
                self.set(1, secret);
                return match callee {
                    Some(BARRIER) => found,
                    Some(callee) if callee.starts_with("core::") && callee.contains("panic") => found,
                    _ => Some("an unknown call"),
                };
            }
            "jmp" | "ret" | "nop" | "nopw" | "nopl" | "cs" | "data16" | "int3" | "ud2" | "endbr64" | "vzeroupper" => {}
            _ if mnemonic.starts_with('j') => return self.any(FLAGS).then_some("a jump"),
            "div" | "idiv" | "divl" | "divq" => return Some("a division"),
            "push" | "pop" => self.writes(last, false),
            "cmp" | "test" | "bt" | "ptest" | "vptest" => self.set(FLAGS, reads),
            _ if mnemonic.starts_with("cmp") || mnemonic.starts_with("test") => self.set(FLAGS, reads),
            "lea" => self.writes(last, self.any(address)),
            _ if mnemonic.starts_with("set") => self.writes(last, self.any(FLAGS)),
            _ if mnemonic.starts_with("cmov") => self.writes(last, reads || self.any(FLAGS)),
            _ if mnemonic.starts_with("mov") || mnemonic.starts_with("vmov") => {
                // A part of a register keeps the rest of it.
                let part = matches!(mnemonic, "movb" | "movw" | "movlps" | "movhps" | "movlpd" | "movhpd");
                self.writes(last, all_but_last || (part && reads));
            }
            "pshufd" | "pshuflw" | "pshufhw" | "pmovmskb" => self.writes(last, all_but_last),
            "cltq" | "cwtl" | "cltd" | "cqto" => self.set(0b100, self.any(0b1) || self.any(0b100)),
            // A register that is combined with itself: zeros, or ones.
            "xor" | "sub" | "pxor" | "xorps" | "psubb" | "pcmpeqb" | "pcmpeqw" | "pcmpeqd"
                if operands.len() == 2 && operands[0] == operands[1] =>
            {
                self.writes(last, false);
                if !vector {
                    self.set(FLAGS, false);
                }
            }
            _ if mnemonic.starts_with('v') && operands.len() > 2 => self.writes(last, all_but_last),
            _ => {
                let carry = matches!(mnemonic, "adc" | "sbb") && self.any(FLAGS);
                self.writes(last, reads || carry);
                if !vector && mnemonic != "not" {
                    self.set(FLAGS, reads || carry);
                }
            }
        }
        found
    }
}

/// The name of the function that an instruction calls.
fn callee<'a>(instruction: &Instruction, functions: &'a BTreeMap<u64, Function>) -> Option<&'a str> {
    Some(&functions.get(&instruction.to?)?.name)
}

/// The instructions of a function that depend on what it reads, each with what depends on it.
fn followed(function: &Function, functions: &BTreeMap<u64, Function>) -> BTreeMap<u64, &'static str> {
    let instructions = &function.instructions;
    let at: HashMap<u64, usize> = instructions.iter().enumerate().map(|(at, of)| (of.at, at)).collect();
    let mut before: Vec<Option<Secrets>> = vec![None; instructions.len()];
    let mut found = BTreeMap::new();
    let mut open = vec![(0, Secrets::default())];
    while let Some((number, secrets)) = open.pop() {
        let Some(slot) = before.get_mut(number) else {
            continue;
        };
        match slot {
            Some(known) => {
                if !known.join(&secrets) {
                    continue;
                }
            }
            None => *slot = Some(secrets),
        }
        let mut secrets = slot.clone().unwrap_or_default();
        let instruction = &instructions[number];
        if let Some(what) = secrets.step(instruction, callee(instruction, functions)) {
            found.insert(instruction.at, what);
        }
        let jumps = instruction.text.starts_with('j');
        if let Some(next) = instruction.to.filter(|_| jumps).and_then(|to| at.get(&to)) {
            open.push((*next, secrets.clone()));
        }
        let ends = ["jmp", "ret", "ud2", "int3"]
            .iter()
            .any(|end| instruction.text.starts_with(end));
        if !ends {
            open.push((number + 1, secrets));
        }
    }
    found
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Some(program) = std::env::args().nth(1) else {
        eprintln!("branches PROGRAM");
        return Ok(ExitCode::from(2));
    };
    let functions = functions(&program)?;
    let mut failed = false;

    let controls = CONTROLS.map(|name| (name, None));
    for (name, expected) in FOLLOWED
        .map(|(name, number)| (name, Some(number)))
        .into_iter()
        .chain(controls)
    {
        let function = functions.values().find(|function| function.name == name);
        let function = function.ok_or_else(|| format!("{name} is not in the program"))?;
        let found = followed(function, &functions);
        let as_expected = expected.map_or(!found.is_empty(), |expected| found.len() == expected);
        failed |= !as_expected;
        let what: BTreeSet<_> = found.values().copied().collect();
        println!(
            "{name}: {} instructions, {} depend on what it reads{}{}{}",
            function.instructions.len(),
            found.len(),
            if found.is_empty() { "" } else { ": " },
            Vec::from_iter(what).join(", "),
            match expected {
                _ if !as_expected => " (FORBIDDEN)",
                None => " (as it must be)",
                Some(_) => "",
            }
        );
    }

    let interesting =
        |instruction: &&Instruction| instruction.text.starts_with("call") || instruction.text.starts_with('j');
    let addresses = functions.values().flat_map(|function| &function.instructions);
    let frames = frames(&program, &addresses.filter(interesting).map(|of| of.at).collect())?;
    let mut compared: BTreeMap<&str, usize> = BTreeMap::new();
    for function in functions.values() {
        for instruction in function.instructions.iter().filter(interesting) {
            let around = frames.get(&instruction.at).map_or(&[][..], Vec::as_slice);
            let Some(place) = around.iter().position(|(name, _)| name == COMPARISON) else {
                continue;
            };
            let result = around.first().is_some_and(|(name, _)| name.contains(RESULT));
            if instruction.text.starts_with("call") && callee(instruction, &functions) == Some(BARRIER) {
                let caller = around.get(place + 1).map_or(&function.name, |(name, _)| name);
                *compared.entry(caller).or_default() += 1;
            } else if !(instruction.text.starts_with("jmp") || instruction.text.starts_with('j') && result) {
                failed = true;
                println!(
                    "{:x} in {}: {} (FORBIDDEN)",
                    instruction.at, function.name, instruction.text
                );
            }
        }
    }
    for (caller, what) in COMPARED {
        let places: usize = compared
            .iter()
            .filter(|(name, _)| name.ends_with(caller))
            .map(|(_, places)| places)
            .sum();
        failed |= places == 0;
        println!(
            "{what}: compared in {places} places{}",
            if places == 0 { " (NOT FOUND)" } else { "" }
        );
    }
    println!("{} comparisons in all", compared.values().sum::<usize>());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
