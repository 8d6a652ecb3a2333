//! Exact money: no floats, and no rounding before an invoice is written.

use std::fmt;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};

/// Digits after the point of an amount: a price of six digits, times a token, by a million.
const AMOUNT_DIGITS: u32 = 12;
/// Digits after the point of a price.
const PRICE_DIGITS: u32 = 6;
/// Milliseconds of an hour.
const HOUR_MS: u128 = 3_600_000;
/// The highest price of a million tokens.
const PRICE_MAX: u64 = 1_000_000;

/// The price of a million tokens, in millionths of the currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Price(pub(super) u64);

impl Price {
    /// What a price must be, for refusals.
    pub const RULE: &'static str = "a decimal number from 0 to 1000000 with at most 6 digits after the point";

    /// Reads the digits as they are written: `0.14`. Nothing where they break [`Self::RULE`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if !text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return None;
        }
        let price = Decimal::from_str_exact(text).ok()?.normalize();
        if price.scale() > PRICE_DIGITS || price > Decimal::from(PRICE_MAX) {
            return None;
        }
        let millionths = price.mantissa().checked_mul(10_i128.pow(PRICE_DIGITS - price.scale()))?;
        u64::try_from(millionths).ok().map(Self)
    }

    /// Exactly what so many tokens cost; below zero for tokens that are taken back.
    pub(super) fn of(self, tokens: i64) -> Money {
        Money(i128::from(tokens) * i128::from(self.0))
    }

    /// What so many tokens times milliseconds cost at this price of a million token-hours, halves of the last digit of an amount to
    /// the even one; nothing beyond the numbers that amounts have.
    pub(super) fn of_storage(self, token_ms: u128) -> Option<Money> {
        let product = token_ms.checked_mul(u128::from(self.0))?;
        let (down, rest) = (product / HOUR_MS, product % HOUR_MS);
        let is_up = rest * 2 > HOUR_MS || (rest * 2 == HOUR_MS && down % 2 != 0);
        i128::try_from(down + u128::from(is_up)).ok().map(Money)
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Decimal::from_i128_with_scale(self.0.into(), PRICE_DIGITS).normalize())
    }
}

/// An exact amount, in 10⁻¹² of the currency. The largest, 2⁶³ tokens at the highest price, is far from the end of its 128
/// bits, and so is the sum of as many of them as an invoice can have lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Money(i128);

impl Money {
    /// Reads an amount as it is written, such as `87072` or `0.5`; nothing where it is negative, has more than 12 digits
    /// after the point, or is no decimal number.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let amount = Decimal::from_str(text).ok().filter(|amount| !amount.is_sign_negative())?.normalize();
        let unit = 10_i128.pow(AMOUNT_DIGITS.checked_sub(amount.scale())?);
        amount.mantissa().checked_mul(unit).map(Self)
    }

    /// The amount with so many digits (at most 12) after the point, halves to the even digit.
    #[must_use]
    pub fn rounded(self, digits: u32) -> String {
        match Decimal::try_from_i128_with_scale(self.0, AMOUNT_DIGITS) {
            Ok(exact) => {
                let mut amount = exact.round_dp_with_strategy(digits, RoundingStrategy::MidpointNearestEven);
                amount.rescale(digits);
                amount.to_string()
            }
            Err(_) => format!("{}e-{AMOUNT_DIGITS}", self.0), // beyond 79 · 10¹⁵: exact, if not pretty
        }
    }

    /// How much more this is than `cost`, in percent of the cost with two digits; nothing where the cost is zero or less.
    #[must_use]
    pub fn margin_percent(self, cost: Self) -> Option<String> {
        if cost <= Self::default() {
            return None;
        }
        // In hundredths of a percent, rounded as amounts are.
        let more = self.0.checked_sub(cost.0)?.checked_mul(10_000)?;
        let (down, rest) = (more.checked_div_euclid(cost.0)?, more.checked_rem_euclid(cost.0)?);
        let is_up = rest > cost.0 - rest || (rest == cost.0 - rest && down % 2 != 0);
        Decimal::try_from_i128_with_scale(down + i128::from(is_up), 2).ok().map(|margin| margin.to_string())
    }
}

impl std::ops::Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl std::ops::Sub for Money {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }
}

impl std::iter::Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), std::ops::Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_price_is_the_digits_that_were_written() {
        for (text, millionths) in [("0.14", 140_000), ("2.190", 2_190_000), ("0", 0), ("1000000", 1_000_000_000_000)] {
            assert_eq!(Price::parse(text), Some(Price(millionths)), "{text}");
        }
        for text in ["-0.14", "0.0000001", "1000000.1", "1e3", "inf", "nan", "", "1_000", "0x10", "."] {
            assert_eq!(Price::parse(text), None, "{text}");
        }
        assert_eq!(Price(140_000).to_string(), "0.14");
    }

    #[test]
    fn amounts_are_exact_and_halves_go_to_the_even_digit() {
        assert_eq!(Price(140_000).of(1), Money(140_000));
        assert_eq!(Price(1).of(i64::MIN).0, i128::from(i64::MIN));
        let storage = [1_799_999, 1_800_000, 5_400_000, 5_400_001].map(|token_ms| Price(1).of_storage(token_ms));
        assert_eq!(storage, [0, 0, 2, 2].map(|amount| Some(Money(amount))), "halves to the even one");
        assert_eq!(Price(2).of_storage(u128::MAX), None);
        assert_eq!(Money(500_000).rounded(6), "0.000000");
        assert_eq!(Money(1_500_000).rounded(6), "0.000002");
        assert_eq!(Money(-1_500_000).rounded(6), "-0.000002");
        assert_eq!(Money::parse("87072").map(|money| money.rounded(2)).as_deref(), Some("87072.00"));
        assert_eq!(Money::parse("0.125").map(|money| money.rounded(2)).as_deref(), Some("0.12"));
        assert_eq!([Money::parse("-1"), Money::parse("ten"), Money::parse("0.1234567890123")], [None; 3]);
    }

    #[test]
    fn a_margin_is_in_percent_of_the_cost() {
        let [revenue, cost] = ["562027", "87072"].map(|text| Money::parse(text).unwrap());
        assert_eq!(revenue.margin_percent(cost).as_deref(), Some("545.47"));
        assert_eq!(cost.margin_percent(revenue).as_deref(), Some("-84.51"));
        assert_eq!(revenue.margin_percent(Money::default()), None);
    }
}
