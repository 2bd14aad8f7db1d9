/** Keeps the tabs of a browser in sync about what the server does not tell them. Each topic has its own messages. */

export interface Tabs<News> {
  /** Sends to all other tabs. */
  tell(news: News): void
  close(): void
}

/** Calls `hear` with the messages of other tabs on a topic, until closed. Does nothing without BroadcastChannel. */
export function joinTabs<News>(topic: string, hear: (news: News) => void): Tabs<News> {
  if (typeof BroadcastChannel === 'undefined') return { tell: () => undefined, close: () => undefined }
  const channel = new BroadcastChannel(`smartlink.${topic}`)
  channel.onmessage = ({ data }: MessageEvent<News>) => hear(data)
  return { tell: (news) => channel.postMessage(news), close: () => channel.close() }
}
