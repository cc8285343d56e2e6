"""What swap and edit share: source and targets denoised side by side, with attention passed from
the source to the targets. Knows no verb."""
