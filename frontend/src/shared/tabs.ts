/** Keeps the tabs of one browser in step about what the server does not tell them. Each topic has its own messages. */

export interface Tabs<News> {
  /** Sends to all other tabs. */
  tell(news: News): void
  close(): void
}

/** Calls `hear` with what other tabs tell about a topic, until it is closed. Silent in browsers that cannot do it. */
export function joinTabs<News>(topic: string, hear: (news: News) => void): Tabs<News> {
  if (typeof BroadcastChannel === 'undefined') return { tell: () => undefined, close: () => undefined }
  const channel = new BroadcastChannel(`smartlink.${topic}`)
  channel.onmessage = ({ data }: MessageEvent<News>) => hear(data)
  return { tell: (news) => channel.postMessage(news), close: () => channel.close() }
}
