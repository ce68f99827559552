use std::collections::HashMap;
use std::io::BufRead;

use super::{Id, Node, Pickle, Source, StorageRef, TensorRef};

/// The most nodes that are made, and the most entries that objects get; a checkpoint has some ten thousand.
const MOST_NODES: usize = 1 << 22;
/// The most dimensions of a tensor.
const MOST_DIMENSIONS: usize = 8;
/// The most arguments of a call.
const MOST_ARGUMENTS: usize = 16;
/// The longest name of a class, function or storage.
const LONGEST_NAME: usize = 128;

/// Read one pickle, protocols 0 to 5.
///
/// # Errors
/// At which byte, and what is wrong there.
pub(crate) fn read<R: BufRead>(source: &mut Source<R>) -> Result<Pickle, String> {
    let start = source.position();
    let mut machine = Machine::default();
    loop {
        let at = source.position() - start;
        match machine.step(source) {
            Ok(true) => {}
            Ok(false) => break,
            Err(message) => return Err(format!("byte {at} of the pickle: {message}")),
        }
    }
    let root = machine.pop().map_err(|message| format!("end of the pickle: {message}"))?;
    Ok(Pickle { nodes: machine.nodes, root })
}

#[derive(Default)]
struct Machine {
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Heights of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// Entries that objects got from others: a few bytes can ask for millions.
    copied: usize,
}

impl Machine {
    /// One instruction; false after the last.
    fn step<R: BufRead>(&mut self, source: &mut Source<R>) -> Result<bool, String> {
        match source.byte()? {
            b'.' => return Ok(false),
            // Protocol and frames say nothing about content.
            0x80 => drop(source.byte()?),
            0x95 => drop(source.array::<8>()?),
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            opcode @ (b'K' | b'M' | b'J' | 0x8a | 0x8b | b'I' | b'L') => {
                let number = whole_number(opcode, source)?;
                self.push(number)?;
            }
            b'G' => self.push(Node::Float(f64::from_be_bytes(source.array()?)))?,
            b'F' => {
                let line = source.line()?;
                let number = line.parse().map_err(|_| format!("`{}` is not a number", shown(&line)))?;
                self.push(Node::Float(number))?;
            }
            opcode @ (b'X' | 0x8c | 0x8d) => {
                let length = length(
                    if opcode == b'X' {
                        4
                    } else if opcode == 0x8c {
                        1
                    } else {
                        8
                    },
                    source,
                )?;
                let text = source.text(length)?;
                self.push(Node::Text(text))?;
            }
            b'V' => {
                let text = source.line()?;
                self.push(Node::Text(text))?;
            }
            opcode @ (b'T' | b'U' | b'B' | b'C' | 0x8e | 0x96) => self.byte_string(opcode, source)?,
            opcode @ (b'p' | b'q' | b'r' | 0x94 | b'g' | b'h' | b'j') => self.memory(opcode, source)?,
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            opcode @ (b')' | b't' | 0x85..=0x87 | b']' | b'l' | b'}' | b'd' | 0x8f | 0x91) => self.collect(opcode)?,
            opcode @ (b'a' | b'e' | b's' | b'u' | 0x90) => self.extend(opcode)?,
            b'c' => {
                let (module, name) = (source.line()?, source.line()?);
                self.global(&module, &name)?;
            }
            0x93 => self.global_from_stack()?,
            b'Q' => self.persistent()?,
            b'R' | 0x81 => self.call()?,
            0x92 => {
                self.pop()?;
                self.call()?;
            }
            b'b' => self.build()?,
            opcode => return Err(format!("instruction 0x{opcode:02x} is not one that checkpoints use")),
        }
        Ok(true)
    }

    fn make(&mut self, node: Node) -> Result<Id, String> {
        if self.nodes.len() >= MOST_NODES {
            return Err(format!("more than {MOST_NODES} values"));
        }
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn push(&mut self, node: Node) -> Result<(), String> {
        let id = self.make(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Id, String> {
        if self.stack.len() <= self.floor() {
            return Err("it takes more values than it has made".to_owned());
        }
        self.stack.pop().ok_or_else(|| "it takes more values than it has made".to_owned())
    }

    fn top(&self) -> Result<Id, String> {
        let top = self.stack.last().filter(|_| self.stack.len() > self.floor());
        top.copied().ok_or_else(|| "it takes more values than it has made".to_owned())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("it ends a list that it has not begun")?;
        Ok(self.stack.split_off(mark.min(self.stack.len())))
    }

    fn node(&self, id: Id) -> &Node {
        self.nodes.get(id).unwrap_or(&Node::None)
    }

    fn byte_string<R: BufRead>(&mut self, opcode: u8, source: &mut Source<R>) -> Result<(), String> {
        let size = match opcode {
            b'U' | b'C' => 1,
            b'T' | b'B' => 4,
            _ => 8,
        };
        let length = length(size, source)?;
        let bytes = source.bytes(length)?;
        // Texts of Python 2 are bytes.
        let node = match (opcode, String::from_utf8(bytes)) {
            (b'T' | b'U', Ok(text)) => Node::Text(text),
            (_, Ok(text)) => Node::Bytes(text.into_bytes()),
            (_, Err(error)) => Node::Bytes(error.into_bytes()),
        };
        self.push(node)
    }

    fn memory<R: BufRead>(&mut self, opcode: u8, source: &mut Source<R>) -> Result<(), String> {
        let place = match opcode {
            b'q' | b'h' => u32::from(source.byte()?),
            b'r' | b'j' => u32::from_le_bytes(source.array()?),
            0x94 => u32::try_from(self.memo.len()).map_err(|e| e.to_string())?,
            _ => source.line()?.parse().map_err(|_| "a place in the memo is not a number")?,
        };
        if matches!(opcode, b'g' | b'h' | b'j') {
            let id = *self.memo.get(&place).ok_or_else(|| format!("nothing was kept under {place}"))?;
            self.stack.push(id);
        } else {
            self.memo.insert(place, self.top()?);
        }
        Ok(())
    }

    /// A new list, tuple, set or dictionary.
    fn collect(&mut self, opcode: u8) -> Result<(), String> {
        let node = match opcode {
            b')' => Node::Tuple(Vec::new()),
            b']' | 0x8f => Node::List(Vec::new()),
            b'}' => Node::Dict(Vec::new()),
            b't' => Node::Tuple(self.pop_to_mark()?),
            b'l' | 0x91 => Node::List(self.pop_to_mark()?),
            b'd' => Node::Dict(pairs(&self.pop_to_mark()?)?),
            _ => {
                let count = usize::from(opcode - 0x84);
                let mut members = (0..count).map(|_| self.pop()).collect::<Result<Vec<_>, _>>()?;
                members.reverse();
                Node::Tuple(members)
            }
        };
        self.push(node)
    }

    /// More members for the list or dictionary below them.
    fn extend(&mut self, opcode: u8) -> Result<(), String> {
        let members = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_to_mark()?,
        };
        let target = self.top()?;
        match self.nodes.get_mut(target) {
            Some(Node::List(list)) if matches!(opcode, b'a' | b'e' | 0x90) => list.extend(members),
            Some(Node::Dict(dict)) if matches!(opcode, b's' | b'u') => dict.extend(pairs(&members)?),
            Some(Node::Other) => {}
            _ => return Err("it adds members to what is no list or dictionary".to_owned()),
        }
        Ok(())
    }

    fn global_from_stack(&mut self) -> Result<(), String> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Node::Text(module), Node::Text(name)) = (self.node(module), self.node(name)) else {
            return Err("the name of a class is no text".to_owned());
        };
        let (module, name) = (module.clone(), name.clone());
        self.global(&module, &name)
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let full = format!("{module}.{name}");
        if full.len() <= LONGEST_NAME && is_known(module, &full) {
            return self.push(Node::Global(full));
        }
        Err(format!(
            "it asks for `{}`, which no checkpoint needs; nothing was executed: do not open this file with another program",
            shown(&full)
        ))
    }

    /// `("storage", class, key, device, elements)`, and in old files a view at the end.
    fn persistent(&mut self) -> Result<(), String> {
        let id = self.pop()?;
        let Node::Tuple(members) = self.node(id) else {
            return Err("an external value is not named by a tuple".into());
        };
        let members: Vec<&Node> = members.iter().map(|m| self.node(*m)).collect();
        let storage = match members.as_slice() {
            [Node::Text(kind), Node::Global(class), Node::Text(key), _, Node::Int(elements), view @ ..]
                if kind == "storage" && key.len() <= LONGEST_NAME && view.iter().all(|v| **v == Node::None) =>
            {
                StorageRef {
                    key: key.clone(),
                    class: class.rsplit('.').next().unwrap_or_default().to_owned(),
                    elements: u64::try_from(*elements).map_err(|_| "a storage has a negative size")?,
                }
            }
            _ => return Err("an external value is no storage of a tensor".to_owned()),
        };
        self.push(Node::Storage(storage))
    }

    /// What a call of a known class or function stands for.
    fn call(&mut self) -> Result<(), String> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let Node::Global(name) = self.node(callee) else { return Err("it calls what is no function".to_owned()) };
        let name = name.clone();
        let arguments = match self.node(arguments) {
            Node::Tuple(arguments) if arguments.len() <= MOST_ARGUMENTS => arguments.clone(),
            _ => return Err(format!("`{name}` is called with what are no arguments of its")),
        };
        let node = match name.as_str() {
            "collections.OrderedDict" | "collections.defaultdict" | "argparse.Namespace" => Node::Dict(Vec::new()),
            // An object of Python 2.
            "copy_reg._reconstructor" | "copyreg._reconstructor" => Node::Dict(Vec::new()),
            "torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor" => {
                Node::Tensor(self.tensor(&arguments)?)
            }
            "torch._utils._rebuild_parameter"
            | "torch._utils._rebuild_parameter_with_state"
            | "torch._tensor._rebuild_from_type_v2"
            | "torch.Size" => return self.forward(&name, &arguments),
            _ => Node::Other,
        };
        self.push(node)
    }

    /// The tensor, or the tuple, that a wrapper holds.
    fn forward(&mut self, name: &str, arguments: &[Id]) -> Result<(), String> {
        if name == "torch._tensor._rebuild_from_type_v2" {
            let (Some(callee), Some(inner)) = (arguments.first(), arguments.get(2)) else {
                return Err(format!("`{name}` is called with too few arguments"));
            };
            self.stack.extend([*callee, *inner]);
            return self.call_inner();
        }
        let first = arguments.first().ok_or_else(|| format!("`{name}` is called without arguments"))?;
        self.stack.push(*first);
        Ok(())
    }

    /// A call within a call: of the function that rebuilds a plain tensor, and no deeper.
    fn call_inner(&mut self) -> Result<(), String> {
        let callee = self.stack.get(self.stack.len().saturating_sub(2)).map(|id| self.node(*id));
        match callee {
            Some(Node::Global(name)) if name.starts_with("torch._utils._rebuild_tensor") => self.call(),
            _ => Err("a tensor is wrapped in a way that is not known".to_owned()),
        }
    }

    /// `(storage, offset, shape, strides, ...)`.
    fn tensor(&self, arguments: &[Id]) -> Result<TensorRef, String> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err("a tensor lacks its shape".to_owned());
        };
        let (Node::Storage(storage), Node::Int(offset)) = (self.node(*storage), self.node(*offset)) else {
            return Err("a tensor lacks its storage".to_owned());
        };
        let tensor = TensorRef {
            storage: storage.clone(),
            offset: u64::try_from(*offset).map_err(|_| "a tensor begins before its storage")?,
            shape: self.sizes(*shape)?,
            strides: self.sizes(*strides)?,
        };
        if tensor.shape.len() != tensor.strides.len() {
            return Err("a tensor has another number of strides than of dimensions".to_owned());
        }
        Ok(tensor)
    }

    fn sizes(&self, id: Id) -> Result<Vec<u64>, String> {
        let Node::Tuple(members) = self.node(id) else { return Err("the shape of a tensor is no tuple".to_owned()) };
        if members.len() > MOST_DIMENSIONS {
            return Err(format!("a tensor has {} dimensions; at most {MOST_DIMENSIONS} are possible", members.len()));
        }
        let size = |id: &Id| match self.node(*id) {
            Node::Int(n) => u64::try_from(*n).map_err(|_| "a tensor has a negative size".to_owned()),
            _ => Err("a size of a tensor is not a number".to_owned()),
        };
        members.iter().map(size).collect()
    }

    /// Attributes for an object: of a namespace they are its entries.
    fn build(&mut self) -> Result<(), String> {
        let (state, target) = (self.pop()?, self.top()?);
        let state = match self.node(state) {
            // Attributes in slots come as a pair.
            Node::Tuple(pair) => pair.first().copied().unwrap_or(state),
            _ => state,
        };
        let added = match self.node(state) {
            Node::Dict(entries) if self.copied + entries.len() <= MOST_NODES => entries.clone(),
            Node::Dict(_) => return Err(format!("more than {MOST_NODES} attributes")),
            _ => Vec::new(),
        };
        self.copied += added.len();
        if let Some(Node::Dict(entries)) = self.nodes.get_mut(target) {
            // A state dict carries attributes of its own (`_metadata`), which are no entries of it: they come in a
            // dictionary after the entries, and do no harm beside them.
            entries.extend(added);
        }
        Ok(())
    }
}

/// Names that occur in checkpoints. None of them is called; those that [`Machine::call`] does not know stand for
/// [`Node::Other`].
fn is_known(module: &str, full: &str) -> bool {
    let package = module.split('.').next().unwrap_or_default();
    matches!(package, "torch" | "numpy" | "collections" | "pathlib")
        || matches!(
            full,
            "argparse.Namespace" | "_codecs.encode" | "copy_reg._reconstructor" | "copyreg._reconstructor"
        )
        || matches!(full, "builtins.set" | "__builtin__.set" | "builtins.object" | "__builtin__.object")
}

fn pairs(members: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    if !members.len().is_multiple_of(2) {
        return Err("a key of a dictionary has no value".to_owned());
    }
    Ok(members.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect())
}

/// A length of 1, 4 or 8 bytes.
fn length<R: BufRead>(size: u8, source: &mut Source<R>) -> Result<u64, String> {
    Ok(match size {
        1 => u64::from(source.byte()?),
        4 => u64::from(u32::from_le_bytes(source.array()?)),
        _ => u64::from_le_bytes(source.array()?),
    })
}

fn whole_number<R: BufRead>(opcode: u8, source: &mut Source<R>) -> Result<Node, String> {
    Ok(Node::Int(match opcode {
        b'K' => i64::from(source.byte()?),
        b'M' => i64::from(u16::from_le_bytes(source.array()?)),
        b'J' => i64::from(i32::from_le_bytes(source.array()?)),
        0x8a | 0x8b => {
            let size = length(if opcode == 0x8a { 1 } else { 4 }, source)?;
            let bytes = source.bytes(size)?;
            match little_endian(&bytes) {
                Some(number) => number,
                // The magic number of old files, and nothing else, is longer.
                None => return Ok(Node::Bytes(bytes)),
            }
        }
        _ => {
            let line = source.line()?;
            match (opcode, line.as_str()) {
                (b'I', "00") => return Ok(Node::Bool(false)),
                (b'I', "01") => return Ok(Node::Bool(true)),
                (_, digits) => {
                    digits.trim_end_matches('L').parse().map_err(|_| format!("`{}` is not a number", shown(digits)))?
                }
            }
        }
    }))
}

/// A signed number of at most 8 bytes.
fn little_endian(bytes: &[u8]) -> Option<i64> {
    let negative = bytes.last().is_some_and(|b| b & 0x80 != 0);
    let mut padded = [if negative { 0xff } else { 0 }; 8];
    padded.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(i64::from_le_bytes(padded))
}

/// A name from the file, short enough for an error and without control characters.
fn shown(name: &str) -> String {
    name.chars().take(80).map(|c| if c.is_control() { '?' } else { c }).collect()
}
