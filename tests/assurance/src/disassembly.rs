//! Reads the machine code of programs with binutils.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    error::Error,
    io::Write,
    process::{Command, Stdio},
};

fn output(command: &mut Command) -> Result<String, Box<dyn Error>> {
    let output = command.output()?;
    if !output.status.success() {
        return Err(format!("{command:?} failed").into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Calls through the global offset table: each slot, and the address that the loader stores there.
fn slots(program: &str) -> Result<HashMap<u64, u64>, Box<dyn Error>> {
    let relocations = output(Command::new("objdump").args(["-R", program]))?;
    let slot = |line: &str| {
        let mut words = line.split_whitespace();
        let at = u64::from_str_radix(words.next()?, 16).ok()?;
        let to = words.nth(1)?.strip_prefix("*ABS*+0x")?;
        Some((at, u64::from_str_radix(to, 16).ok()?))
    };
    Ok(relocations.lines().filter_map(slot).collect())
}

/// A function, with its instructions.
#[derive(Default)]
pub struct Function {
    pub name: String,
    pub instructions: Vec<Instruction>,
}

pub struct Instruction {
    pub at: u64,
    /// As objdump writes it, without the comment.
    pub text: String,
    /// The address that it jumps to, calls or refers to.
    pub to: Option<u64>,
}

/// The functions of a program for x86-64, by address.
pub fn functions(program: &str) -> Result<BTreeMap<u64, Function>, Box<dyn Error>> {
    let slots = slots(program)?;
    let arguments = ["-d", "--no-show-raw-insn", "--demangle=rust", "-j", ".text", program];
    let text = output(Command::new("objdump").args(arguments))?;
    let mut functions = BTreeMap::new();
    let mut function = &mut Function::default();
    for line in text.lines() {
        // 0000000000026590 <name>:
        if let Some((address, name)) = line.strip_suffix(">:").and_then(|line| line.split_once(" <")) {
            function = functions.entry(u64::from_str_radix(address, 16)?).or_default();
            function.name = name.to_owned();
            continue;
        }
        //    26594:	call   *0x72501(%rip)        # 98a98 <name>
        let Some((at, instruction)) = line.trim_start().split_once(":\t") else {
            continue;
        };
        let (text, comment) = match instruction.split_once("# ") {
            Some((text, comment)) => (text, Some(comment)),
            None => (instruction, None),
        };
        let to = match comment {
            Some(comment) => comment,
            None if text.starts_with(['c', 'j']) => text.split_whitespace().nth(1).unwrap_or_default(),
            None => "",
        };
        let to = u64::from_str_radix(to.split_whitespace().next().unwrap_or_default(), 16).ok();
        function.instructions.push(Instruction {
            at: u64::from_str_radix(at, 16)?,
            text: text.trim_end().to_owned(),
            to: to.map(|to| slots.get(&to).copied().unwrap_or(to)),
        });
    }
    Ok(functions)
}

/// A function, with its file and line.
pub type Frame = (String, String);

/// The functions around each address, the innermost first.
pub fn frames(program: &str, addresses: &BTreeSet<u64>) -> Result<HashMap<u64, Vec<Frame>>, Box<dyn Error>> {
    let mut child = Command::new("addr2line")
        .args(["-a", "-i", "-f", "-C", "-e", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = child.stdin.take().ok_or("no input")?;
    let lines: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(lines.as_bytes()));
    let text = child.wait_with_output()?.stdout;
    writer.join().map_err(|_| "no input")??;
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut frames: HashMap<u64, Vec<Frame>> = HashMap::new();
    let mut lines = text.lines();
    let mut address = 0;
    while let Some(line) = lines.next() {
        match line.strip_prefix("0x") {
            Some(digits) => address = u64::from_str_radix(digits, 16)?,
            None => {
                let place = lines.next().unwrap_or_default();
                frames
                    .entry(address)
                    .or_default()
                    .push((line.to_owned(), place.to_owned()));
            }
        }
    }
    Ok(frames)
}
