//! Templates: texts with unknown places.

use candle_core::{Device, Tensor};
use lsgm_core::{Result, Template};

use crate::{TextError, Tokenizer};

/// A text in which each `_` is one unknown token, as an item of `length` tokens. A `*` at its end leaves open what follows;
/// else the text ends there.
///
/// White space before a blank belongs to the blank, as it does to the words of most tokenizers.
///
/// # Errors
/// A template that does not fit the item, or has no blank.
pub(crate) fn read(template: &str, tokenizer: &Tokenizer, length: usize, has_end: bool) -> Result<Template> {
    let refuse = |message: String| TextError::Given { text: template.to_owned(), message };
    let (text, open) = match template.strip_suffix('*') {
        Some(text) => (text, true),
        None => (template, false),
    };
    let mut tokens: Vec<Option<u32>> = Vec::new();
    let (spaced, last) = (joins_spaces(tokenizer)?, text.matches('_').count());
    for (index, known) in text.split('_').enumerate() {
        if index > 0 {
            tokens.push(None);
        }
        let known = if spaced && index < last { known.trim_end_matches(' ') } else { known };
        let known_tokens = tokenizer.encode(known)?;
        tokenizer.warn_of_unknown(known, &known_tokens);
        tokens.extend(known_tokens.into_iter().map(Some));
    }
    if !open && has_end {
        tokens.push(Some(tokenizer.end()));
    }
    if tokens.len() > length {
        return Err(refuse(format!("{} tokens do not fit an item of {length}", tokens.len())).into());
    }
    if !open && !tokens.contains(&None) {
        return Err(refuse("nothing is unknown: put a `_` for each unknown token, or a `*` at the end".into()).into());
    }
    // What lies behind the end is filled with ends, as in every item, and counts for nothing.
    let known: Vec<u32> = (0..length).map(|i| u32::from(tokens.get(i).is_some_and(Option::is_some))).collect();
    let token = |i: usize| tokens.get(i).copied().flatten().unwrap_or(tokenizer.end());
    let x: Vec<u32> = (0..length).map(token).collect();
    let row = |values: Vec<u32>| Tensor::from_vec(values, (1, length), &Device::Cpu);
    Ok(Template { x: row(x)?, known: row(known)? })
}

/// Whether the tokenizer takes a space to the word after it, as subword tokenizers do.
fn joins_spaces(tokenizer: &Tokenizer) -> Result<bool> {
    Ok(tokenizer.encode(" a")?.len() == tokenizer.encode("a")?.len() && tokenizer.encode(" ")?.len() == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(template: &Template) -> (Vec<u32>, Vec<u32>) {
        let row = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<u32>().unwrap();
        (row(&template.x), row(&template.known))
    }

    #[test]
    fn blanks_are_unknown_and_the_end_is_known_unless_open() {
        let tokenizer = Tokenizer::characters(&"ab ".chars().collect()).unwrap();
        let ids = |text: &str| tokenizer.encode(text).unwrap();
        let (x, known) = rows(&read("a_b", &tokenizer, 6, true).unwrap());
        assert_eq!((x[0], x[2], x[3]), (ids("a")[0], ids("b")[0], tokenizer.end()));
        assert_eq!(known, [1, 0, 1, 1, 0, 0]);
        assert_eq!(rows(&read("a _ b*", &tokenizer, 6, true).unwrap()).1, [1, 1, 0, 1, 1, 0]);
        assert_eq!(rows(&read("__", &tokenizer, 3, true).unwrap()).1, [0, 0, 1]);
        for (wrong, message) in [("abab_ab", "8 tokens do not fit"), ("ab", "nothing is unknown")] {
            let error = read(wrong, &tokenizer, 6, true).unwrap_err().to_string();
            assert!(error.contains(message) && error.contains(wrong), "{error}");
        }
    }
}
